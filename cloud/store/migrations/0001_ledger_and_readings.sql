-- The schema of the store, the same on TimescaleDB, PostgreSQL and PGlite. What only some of them can do (hypertable,
-- columnstore, continuous aggregate) is added afterwards by features.ts.
--
-- Times are timestamptz: microseconds, as everywhere in Millrace. Names sort by their bytes (COLLATE "C"), so that a
-- page of tags continues at the same place whatever the locale of the server.

CREATE TABLE edge (
  edge_id     int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name        text COLLATE "C" NOT NULL UNIQUE,
  site        text,
  first_seen  timestamptz NOT NULL DEFAULT now(),
  -- The device map that units and descriptions of the edge's tags come from: that of the newest readings.
  device_map  text
);

-- One unbroken sequence of frames of one edge. `arrived` is the account of the sequence numbers that are stored; it
-- outlives the rows of frame_log, so that a frame that comes again after its log row was dropped is still a duplicate.
CREATE TABLE stream (
  stream_id      int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  edge_id        int NOT NULL REFERENCES edge,
  name           text COLLATE "C" NOT NULL,
  arrived        int8multirange NOT NULL DEFAULT '{}',
  frames         int8 NOT NULL DEFAULT 0,
  last_frame_at  timestamptz,
  -- The greatest time of a reading, and the device map of the frame that held it.
  newest_time    timestamptz,
  newest_map     text,
  UNIQUE (edge_id, name)
) WITH (fillfactor = 20); -- updated by each commit: room for heap-only updates

CREATE TABLE tag (
  tag_id       int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  edge_id      int NOT NULL REFERENCES edge,
  device       text COLLATE "C" NOT NULL,
  name         text COLLATE "C" NOT NULL,
  kind         text NOT NULL,
  description  text,
  unit         text,
  equipment    text COLLATE "C",
  range_low    float8,
  range_high   float8,
  UNIQUE (edge_id, device, name)
);
CREATE INDEX tag_equipment ON tag (equipment);

-- Device maps: as they came (raw), and as JSON. Element i of tag_ids (counted from 1) is the tag of index i - 1.
CREATE TABLE device_map (
  hash      text PRIMARY KEY,
  edge_id   int NOT NULL REFERENCES edge,
  saved_at  timestamptz NOT NULL DEFAULT now(),
  tag_ids   int[] NOT NULL,
  content   jsonb NOT NULL,
  raw       bytea NOT NULL
);

-- Numbers of frames are drawn in blocks, so that readings can be encoded without asking for each number.
CREATE SEQUENCE frame_id_block INCREMENT BY 1024;

-- The ledger and the raw record: each frame once.
CREATE TABLE frame_log (
  frame_id     int8 PRIMARY KEY,
  seq          int8 NOT NULL,
  -- No foreign key: its check would lock the stream's row, which each commit updates.
  stream_id    int NOT NULL,
  readings     int NOT NULL,
  received_at  timestamptz NOT NULL DEFAULT now(),
  -- The time span of the readings; null when there are none.
  first_time   timestamptz,
  last_time    timestamptz,
  device_map   text NOT NULL,
  raw          bytea NOT NULL,
  UNIQUE (stream_id, seq)
);
ALTER TABLE frame_log ALTER COLUMN raw SET STORAGE EXTERNAL; -- compressed already
CREATE INDEX frame_log_received_at ON frame_log USING brin (received_at);

-- One of number, boolean, text holds the value; all null: no value. No unique key: the ledger admits each frame once.
-- Columns stand in the order that wastes no byte on alignment.
CREATE TABLE reading (
  "time"     timestamptz NOT NULL,
  number     float8,
  frame_id   int8 NOT NULL,
  tag_id     int NOT NULL,
  -- The OPC UA status code, its 32 bits as a signed integer.
  quality    int NOT NULL,
  "boolean"  bool,
  text       text
);
CREATE INDEX reading_tag_time ON reading (tag_id, "time");

CREATE TABLE gap (
  edge_id    int NOT NULL REFERENCES edge,
  device     text COLLATE "C" NOT NULL,
  -- Empty: every tag of the device.
  tag        text COLLATE "C" NOT NULL,
  reason     text COLLATE "C" NOT NULL,
  from_time  timestamptz NOT NULL,
  -- Null while the gap is open.
  to_time    timestamptz,
  detail     text NOT NULL,
  PRIMARY KEY (edge_id, device, tag, reason, from_time)
);

CREATE TABLE refused_message (
  refused_id    int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  refused_at    timestamptz NOT NULL DEFAULT now(),
  topic         text NOT NULL,
  edge          text,
  stream        text,
  seq           int8,
  reason        text NOT NULL,
  -- How long the message was; `payload` holds its beginning.
  payload_size  int NOT NULL,
  payload       bytea NOT NULL
);
ALTER TABLE refused_message ALTER COLUMN payload SET STORAGE EXTERNAL;
