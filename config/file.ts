/**
 * The text in bytes of UTF-8, without a byte order mark.
 * @throws TypeError when they are something else
 */
export function utf8(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
}

/** Why a file cannot be read, and what to do about it. */
export function unreadable(error: unknown): string {
  if (error instanceof TypeError) return "not UTF-8 text; save the file in the encoding UTF-8";
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOENT") return "no such file; create it, or correct the path";
  if (code === "EISDIR") return "a folder, not a file; name the file in it";
  if (code === "EACCES" || code === "EPERM") return "may not be read by this user; change the file's owner or mode";
  return `cannot be read (${code ?? String(error)})`;
}
