const ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz";

/** An id of a conversation or turn, made here so that a call can be sent again: 24 of 0-9 a-z. */
export function newId(): string {
  let id = "";
  while (id.length < 24) {
    for (const byte of crypto.getRandomValues(new Uint8Array(32))) {
      // 252 is the largest multiple of 36 in a byte: no character is likelier than another.
      if (byte < 252 && id.length < 24) id += ALPHABET[byte % 36];
    }
  }
  return id;
}

/** Returns the id of the conversation that the address names, or "". */
export const addressed = () => /^#\/c\/([0-9a-z]{24})$/.exec(location.hash)?.[1] ?? "";
