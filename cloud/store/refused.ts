import type { Database } from "./database.ts";
import type { RefusedMessage, RefusedRow } from "./store.ts";
import { storableText } from "./text.ts";

/** How many refused messages are kept. */
const refusedKept = 1000;
/** How much of each is kept: 1,000 of them take 64 MB at most. */
const refusedPayloadBytes = 64 * 1024;

/** Keeps refused messages; the oldest make room. */
export async function keepRefused(database: Database, messages: readonly RefusedMessage[]): Promise<void> {
  const kept = messages.slice(-refusedKept);
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
          payload.subarray(0, refusedPayloadBytes),
        ],
      );
    }
    await transaction.query(
      `DELETE FROM refused_message WHERE refused_id <=
         (SELECT refused_id FROM refused_message ORDER BY refused_id DESC OFFSET $1 LIMIT 1)`,
      [refusedKept],
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
