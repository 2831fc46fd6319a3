/** The most bytes of the Remaining Length field (MQTT 3.1.1, 2.2.3). */
const lengthBytes = 4;

/**
 * Follows the packets in the bytes of one MQTT connection and says when one announces more bytes than it may have, before
 * they are there: MQTT lets anybody announce 256 MiB, even without a login.
 */
export class PacketLimit {
  /** Bytes of the packet under way that are still to come. */
  #body = 0;
  /** Where in a packet's header the next byte stands: 0 is its first byte, then those of its length. */
  #place = 0;
  #length = 0;

  /**
   * Takes the next bytes of the connection.
   * @param maxBytes the most that a packet which begins here may announce
   * @returns false when a packet announces more, or its header is impossible
   */
  admits(bytes: Uint8Array, maxBytes: number): boolean {
    for (let at = 0; at < bytes.length; ) {
      if (this.#body > 0) {
        const taken = Math.min(this.#body, bytes.length - at);
        this.#body -= taken;
        at += taken;
        continue;
      }
      const byte = bytes[at++]!;
      if (this.#place > 0) this.#length += (byte & 0x7f) * 128 ** (this.#place - 1);
      this.#place++;
      if (this.#length > maxBytes) return false;
      if (this.#place === 1 || byte >= 0x80) {
        if (this.#place > lengthBytes) return false;
        continue;
      }
      this.#body = this.#length;
      this.#length = 0;
      this.#place = 0;
    }
    return true;
  }
}
