/** U+2400, the picture of the NUL character. */
const nulPicture = "\u2400";

/**
 * The text as PostgreSQL can hold it: NUL becomes its picture (U+2400), and half of a surrogate pair U+FFFD, as text
 * from an instrument may hold anything and no reading is refused for it. All other text stays as it is.
 */
export function storableText(text: string): string {
  const wellFormed = text.isWellFormed() ? text : text.toWellFormed();
  return wellFormed.includes("\0") ? wellFormed.replaceAll("\0", nulPicture) : wellFormed;
}
