/** The format of the file; a newer one is refused. */
export const schemaVersion = 1;

/** The tables of buffer.sqlite; README.md explains them. */
export const schema = `
  CREATE TABLE counter (next_seq INTEGER NOT NULL) STRICT;
  INSERT INTO counter (next_seq) VALUES (1);
  CREATE TABLE stream (uuid TEXT PRIMARY KEY, before INTEGER NOT NULL) STRICT;
  CREATE TABLE frame (seq INTEGER PRIMARY KEY, map_hash TEXT NOT NULL, spans TEXT NOT NULL, reports TEXT NOT NULL,
    bytes BLOB NOT NULL) STRICT;
  CREATE TABLE frame_set_aside (seq INTEGER PRIMARY KEY, reason TEXT NOT NULL, bytes BLOB NOT NULL) STRICT;
  CREATE TABLE device_map (hash TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
  CREATE TABLE watermark (device TEXT PRIMARY KEY, time INTEGER NOT NULL) STRICT;
  CREATE TABLE open_gap (device TEXT, tag TEXT, reason TEXT, start INTEGER, detail TEXT NOT NULL,
    PRIMARY KEY (device, tag, reason, start)) STRICT, WITHOUT ROWID;
  CREATE TABLE loss (device TEXT NOT NULL, reason TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    readings INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, offered INTEGER NOT NULL) STRICT;
  CREATE TABLE lost_gap (device TEXT, tag TEXT, reason TEXT, start INTEGER, stop INTEGER, detail TEXT NOT NULL,
    PRIMARY KEY (device, tag, reason, start)) STRICT, WITHOUT ROWID;
  PRAGMA user_version = ${schemaVersion};
`;

/** Every statement the buffer runs, by the name it is prepared under. */
export const statements = {
  counter: "SELECT next_seq FROM counter",
  saveNextSeq: "UPDATE counter SET next_seq = ?",
  beginStream: "INSERT INTO stream (uuid, before) VALUES (?, ?)",
  streams: "SELECT uuid, before FROM stream ORDER BY before",
  endEmptyStreams: "DELETE FROM stream WHERE before = ?",
  // A stream holds the frames after its `before`, up to the next one's.
  endSentStreams: `DELETE FROM stream WHERE NOT EXISTS (SELECT 1 FROM frame WHERE seq > stream.before
    AND seq <= coalesce((SELECT min(later.before) FROM stream AS later WHERE later.before > stream.before), seq))`,

  insertFrame: "INSERT INTO frame (seq, map_hash, spans, reports, bytes) VALUES (?, ?, ?, ?, ?)",
  deleteFrame: "DELETE FROM frame WHERE seq = ?",
  oldest: "SELECT seq, map_hash AS mapHash, bytes FROM frame WHERE seq > ? ORDER BY seq LIMIT ?",
  oldestAccount: "SELECT seq, spans, reports FROM frame ORDER BY seq LIMIT 1",
  account: "SELECT seq, spans, reports FROM frame WHERE seq = ?",
  countFrames: "SELECT count(*) AS frames FROM frame",

  copyAside: `INSERT OR REPLACE INTO frame_set_aside (seq, reason, bytes)
    SELECT seq, ?, bytes FROM frame WHERE seq = ?`,
  trimAside: `DELETE FROM frame_set_aside WHERE seq NOT IN (
    SELECT seq FROM (
      SELECT seq, row_number() OVER latest AS place, sum(length(bytes)) OVER latest AS total
      FROM frame_set_aside WINDOW latest AS (ORDER BY seq DESC))
    WHERE place <= ? AND total <= ?)`,

  map: "SELECT bytes FROM device_map WHERE hash = ?",
  saveMap: "INSERT OR REPLACE INTO device_map (hash, bytes) VALUES (?, ?)",
  dropUnusedMaps: "DELETE FROM device_map WHERE hash <> ? AND hash NOT IN (SELECT map_hash FROM frame)",

  watermarks: "SELECT device, time FROM watermark",
  saveWatermark: "INSERT OR REPLACE INTO watermark (device, time) VALUES (?, ?)",

  openGaps: 'SELECT device, tag, reason, start AS "from", detail FROM open_gap ORDER BY start',
  gapOpens: "INSERT OR REPLACE INTO open_gap (device, tag, reason, start, detail) VALUES (?, ?, ?, ?, ?)",
  gapCloses: "DELETE FROM open_gap WHERE device = ? AND tag = ? AND reason = ? AND start = ?",

  // A loss that was offered to a frame no longer grows: the frame names it by its beginning and end.
  growLoss: `UPDATE loss SET start = min(start, :start), stop = max(stop, :stop), readings = readings + :readings,
      first_seq = min(first_seq, :first), last_seq = max(last_seq, :last)
    WHERE device = :device AND reason = :reason AND offered = 0`,
  beginLoss: `INSERT INTO loss (device, reason, start, stop, readings, first_seq, last_seq, offered)
    VALUES (:device, :reason, :start, :stop, :readings, :first, :last, 0)`,
  losses: `SELECT device, reason, start, stop, readings, first_seq AS first, last_seq AS last
    FROM loss ORDER BY rowid LIMIT ?`,
  offerLosses: "UPDATE loss SET offered = 1 WHERE rowid IN (SELECT rowid FROM loss ORDER BY rowid LIMIT ?)",
  reportLoss: `DELETE FROM loss WHERE device = ? AND reason = ? AND start = ? AND stop = ? AND offered = 1
    RETURNING device, reason, start, stop, readings, first_seq AS first, last_seq AS last`,

  loseGap: `INSERT INTO lost_gap (device, tag, reason, start, stop, detail) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (device, tag, reason, start) DO UPDATE SET stop = coalesce(excluded.stop, stop), detail = excluded.detail`,
  lostGaps: 'SELECT device, tag, reason, start AS "from", stop AS "to", detail FROM lost_gap ORDER BY start LIMIT ?',
  countLostGaps: "SELECT count(*) AS gaps FROM lost_gap",
  reportGap: `DELETE FROM lost_gap WHERE device = ? AND tag = ? AND reason = ? AND start = ?
    AND (stop IS NULL OR stop = ?)`,

  freePages: "SELECT freelist_count AS free FROM pragma_freelist_count",
  usedBytes: `SELECT (page_count - freelist_count) * page_size AS used
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size`,
} as const;
