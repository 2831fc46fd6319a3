import { crypto_utils, makeApplicationUrn, type OPCUAClientOptions } from "node-opcua-client";

/** The name under which servers see Millrace. */
export const applicationName = "Millrace";

/** Who the agent is towards servers: its application's URI, and a certificate and key for it. */
export type Identity = Required<Pick<OPCUAClientOptions, "applicationUri" | "certificateKeyPairProvider">>;

/**
 * A self-signed certificate that lives as long as the agent. The library presents one even where no message is signed;
 * left to itself it would write it to the home directory. Takes some tens of milliseconds, off the event loop.
 */
export async function temporaryIdentity(hostName: string): Promise<Identity> {
  const applicationUri = makeApplicationUrn(hostName, applicationName);
  const privateKey = await crypto_utils.generatePrivateKey(2048);
  const { cert } = await crypto_utils.createSelfSignedCertificate({
    privateKey,
    applicationUri,
    subject: `/CN=${applicationName}`,
    dns: [hostName],
    validity: 365,
    purpose: crypto_utils.CertificatePurpose.ForApplication,
  });
  const { privPem } = await crypto_utils.privateKeyToPEM(privateKey);
  const chain = [crypto_utils.convertPEMtoDER(cert)];
  const key = crypto_utils.makePrivateKeyFromPem(privPem);
  return {
    applicationUri,
    certificateKeyPairProvider: {
      getCertificate: () => chain[0]!,
      getCertificateChain: () => chain,
      getPrivateKey: () => key,
    },
  };
}
