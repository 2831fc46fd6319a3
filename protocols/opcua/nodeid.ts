/**
 * Node ids as engineers write them (OPC 10000-6, 5.3.1.10 and .11), read without the OPC UA library, because the
 * configuration is checked long before a driver is loaded.
 */

/** The kinds of identifier, by their letter: numeric, string, GUID, opaque (base64). */
export type IdentifierKind = "i" | "s" | "g" | "b";

/** A node id before a session: its namespace is a URI, whose index only the server knows, or an index. */
export interface NodeAddress {
  /** A namespace URI, or an index that is taken as it is. */
  readonly namespace: string | number;
  readonly kind: IdentifierKind;
  /** The identifier's text, such as `2258` or `TT101.PV`. */
  readonly identifier: string;
}

const identifierForms: Record<IdentifierKind, RegExp> = {
  i: /^\d{1,10}$/,
  s: /^.{1,4096}$/s,
  g: /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i,
  b: /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/,
};

/**
 * Reads `nsu=<uri>;s=…`, `ns=<index>;s=…` or `s=…` (namespace 0), with `i`, `s`, `g` or `b` for the identifier's kind.
 * In a URI, `%3B` stands for a semicolon and `%25` for a percent sign. Undefined when the text is no node id.
 */
export function parseNodeAddress(text: string): NodeAddress | undefined {
  const match = /^(?:nsu=([^;]+);|ns=(\d{1,5});)?([isgb])=(.+)$/s.exec(text);
  if (!match) return undefined;
  const [, uri, index, letter, identifier] = match as unknown as [string, string?, string?, IdentifierKind?, string?];
  if (!letter || !identifier || !identifierForms[letter].test(identifier)) return undefined;
  if (letter === "i" && Number(identifier) > 0xffff_ffff) return undefined;
  if (index !== undefined && Number(index) > 0xffff) return undefined;
  const namespace = uri !== undefined ? uri.replaceAll(/%3B/gi, ";").replaceAll("%25", "%") : Number(index ?? 0);
  return { namespace, kind: letter, identifier };
}
