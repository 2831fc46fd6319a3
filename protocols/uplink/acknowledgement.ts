import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { DataError } from "../errors.ts";
import { AcknowledgementSchema } from "./gen/frame_pb.ts";

/** What the cloud tells one edge. Only `committed` frees frames of the edge's buffer. */
export interface Acknowledgement {
  /** The stream that `committed` and `refused` are about; null when there are none. */
  readonly stream: string | null;
  /** Sequence numbers whose readings are committed. */
  readonly committed: readonly number[];
  /** Frames that can never be stored, and why. */
  readonly refused: readonly { readonly seq: number; readonly reason: string }[];
  /** Hashes of device maps that are stored. */
  readonly mapsStored: readonly string[];
  /** Hashes of device maps that frames named but that are not stored: to be sent again, then the frames. */
  readonly mapsNeeded: readonly string[];
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const unhex = (text: string) => Buffer.from(text, "hex");

export function encodeAcknowledgement(acknowledgement: Partial<Acknowledgement>): Uint8Array {
  const { stream, committed = [], refused = [], mapsStored = [], mapsNeeded = [] } = acknowledgement;
  const message = create(AcknowledgementSchema, {
    stream: stream ? unhex(stream) : new Uint8Array(),
    committed: committed.map(BigInt),
    refused: refused.map(({ seq, reason }) => ({ seq: BigInt(seq), reason })),
    mapsStored: mapsStored.map(unhex),
    mapsNeeded: mapsNeeded.map(unhex),
  });
  return toBinary(AcknowledgementSchema, message);
}

/** @throws DataError when the bytes are no acknowledgement */
export function decodeAcknowledgement(bytes: Uint8Array): Acknowledgement {
  try {
    const message = fromBinary(AcknowledgementSchema, bytes);
    return {
      stream: message.stream.length === 16 ? hex(message.stream) : null,
      committed: message.committed.map(Number),
      refused: message.refused.map(({ seq, reason }) => ({ seq: Number(seq), reason })),
      mapsStored: message.mapsStored.map(hex),
      mapsNeeded: message.mapsNeeded.map(hex),
    };
  } catch (error) {
    throw new DataError("the acknowledgement is no valid message", { cause: error });
  }
}
