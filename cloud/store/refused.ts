import type { Database } from "./database.ts";
import type { RefusedMessage, RefusedRow } from "./store.ts";
import { storableText } from "./text.ts";

/** How many refused messages are kept at most, and how many bytes of them all. */
const keptMessages = 1000;
const keptBytes = 32 * 1024 * 1024;
/** How much of one is kept: all of any frame, as its content is bounded to this. */
const messageBytes = 8 * 1024 * 1024;

/** Keeps refused messages; the oldest make room. */
export async function keepRefused(database: Database, messages: readonly RefusedMessage[]): Promise<void> {
  const kept = messages.slice(-keptMessages);
  if (kept.length === 0) return;
  const text = (value: string | null) => (value === null ? null : storableText(value));
  await database.transaction(async (transaction) => {
    for (const { topic, edge, stream, seq, reason, payload } of kept) {
      await transaction.query(
        `INSERT INTO refused_message (topic, edge, stream, seq, reason, payload_size, payload)
         VALUES ($1, $2, $3, $4, $5, $6, $7)`,
        [
          storableText(topic),
          text(edge),
          text(stream),
          Number.isSafeInteger(seq) ? seq : null,
          storableText(reason),
          payload.byteLength,
          payload.subarray(0, messageBytes),
        ],
      );
    }
    await transaction.query(
      `DELETE FROM refused_message WHERE refused_id <= (
         SELECT refused_id FROM (
           SELECT refused_id, row_number() OVER latest AS messages, sum(octet_length(payload)) OVER latest AS bytes
           FROM refused_message WINDOW latest AS (ORDER BY refused_id DESC)
         ) r WHERE messages > $1 OR bytes > $2 ORDER BY refused_id DESC LIMIT 1)`,
      [keptMessages, keptBytes],
    );
  });
}

export async function refusedMessages(database: Database, limit: number): Promise<RefusedRow[]> {
  return database.query<RefusedRow>(
    `SELECT refused_at AS "refusedAt", topic, edge, stream, seq, reason, payload_size AS "payloadBytes", payload
     FROM refused_message ORDER BY refused_id DESC LIMIT $1`,
    [limit],
  );
}
