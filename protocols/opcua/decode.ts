import {
  DataType,
  type DataValue,
  LocalizedText,
  NodeId,
  QualifiedName,
  StatusCode,
  VariantArrayType,
} from "node-opcua-client";
import type { ValueKind } from "../device.ts";
import { isBad, isGood, type Micros, Quality, type Reading, type Value } from "../reading.ts";

/** Status codes of OPC UA that the driver gives or looks for, beside those in `Quality`. */
export const Status = {
  BadTypeMismatch: 0x80740000,
  BadFilterNotAllowed: 0x80450000,
  BadMonitoredItemFilterInvalid: 0x80430000,
  BadMonitoredItemFilterUnsupported: 0x80440000,
  BadDeadbandFilterInvalid: 0x808e0000,
} as const;

/** Some time in 2255, after which microseconds are no safe integers. OPC UA's "latest there is", 9999, lies beyond. */
const latestMs = Math.floor(Number.MAX_SAFE_INTEGER / 1000);

/**
 * One value of an item as a reading.
 *
 * - Time: the source's; where that is missing or impossible the server's; failing both, `arrival`.
 * - Quality: the server's status code without the info bits that speak of the transport (see `statusOf`). A value that
 *   cannot be had as number, boolean or text is BadNotSupported, one that is not of the wanted kind BadTypeMismatch, not
 *   a number or infinity BadSensorFailure, none at all BadWaitingForInitialData.
 * - A 64-bit integer that no double holds exactly becomes the nearest one, and Uncertain.
 */
export function toReading(tag: string, kind: ValueKind, dataValue: DataValue, arrival: Micros): Reading {
  const time =
    microsOf(dataValue.sourceTimestamp, dataValue.sourcePicoseconds) ??
    microsOf(dataValue.serverTimestamp, dataValue.serverPicoseconds) ??
    arrival;
  const quality = statusOf(dataValue.statusCode.value);
  if (isBad(quality)) return { tag, time, value: null, quality };

  const { dataType, arrayType, value: raw } = dataValue.value;
  if (arrayType !== VariantArrayType.Scalar) return { tag, time, value: null, quality: Quality.BadNotSupported };
  if (dataType === DataType.Double || dataType === DataType.Float) {
    if (!Number.isFinite(raw)) return { tag, time, value: null, quality: Quality.BadSensorFailure };
    return ofKind(kind, { tag, time, value: raw, quality });
  }
  if (dataType === DataType.Int64 || dataType === DataType.UInt64) {
    const value = integer64(raw, dataType === DataType.Int64);
    const exact = Number.isSafeInteger(value) || BigInt(value) === bigInteger64(raw, dataType === DataType.Int64);
    return ofKind(kind, { tag, time, value, quality: exact || !isGood(quality) ? quality : Quality.Uncertain });
  }
  const value = scalar(dataType, raw);
  if (value === undefined) return { tag, time, value: null, quality: Quality.BadNotSupported };
  if (value === null) return { tag, time, value, quality: Quality.BadWaitingForInitialData };
  return ofKind(kind, { tag, time, value, quality });
}

/**
 * Why a value does not fit the tag, for a person; undefined where it does. A misfit is a matter of the device map, not
 * of the process.
 */
export function misfitOf(reading: Reading, { value: { dataType, arrayType } }: DataValue): string | undefined {
  const type = DataType[dataType] ?? `type ${dataType}`;
  if (reading.quality === Status.BadTypeMismatch) return `the node's ${type} is not of the type that the tag names`;
  if (reading.quality !== Quality.BadNotSupported) return undefined;
  if (arrayType !== VariantArrayType.Scalar)
    return `the node holds an array of ${type}: only single values can be read`;
  return `the node's ${type} cannot be read as a number, boolean or text`;
}

/** Refuses a value that is not of the wanted kind. */
function ofKind(kind: ValueKind, reading: Reading): Reading {
  if (kind === "any" || kind === kindOf(reading.value)) return reading;
  return { tag: reading.tag, time: reading.time, value: null, quality: Status.BadTypeMismatch };
}

function kindOf(value: Value): ValueKind | null {
  if (typeof value === "number") return "number";
  if (typeof value === "string") return "text";
  return typeof value === "boolean" ? "boolean" : null;
}

/**
 * Whole microseconds; undefined for a time that cannot be one of a measurement: none, at or before 1970 (1601 is OPC
 * UA's "no time", 1970 a clock that was never set), or after 2255.
 */
export function microsOf(date: Date | null | undefined, picoseconds: number | null | undefined): Micros | undefined {
  const ms = date ? date.getTime() : Number.NaN;
  if (!(ms > 0 && ms < latestMs)) return undefined;
  return ms * 1000 + Math.floor((picoseconds ?? 0) / 1_000_000);
}

/**
 * A status code as a quality. Severity, code, SemanticsChanged, StructureChanged and the limit bits stay (OPC 10000-4,
 * 7.39). The overflow bit says nothing of this value but of its lost neighbours, and is taken off: see `hasOverflowed`.
 */
export function statusOf(code: number): Quality {
  if ((code & 0xffff) === 0) return code;
  const limits = (code & dataValueInfo) === dataValueInfo ? code & 0x0300 : 0;
  return ((code & 0xffff_c000) | (limits === 0 ? 0 : dataValueInfo | limits)) >>> 0;
}

/** True where the server says with a value that it lost others of the same item, because its queue was full. */
export function hasOverflowed(code: number): boolean {
  return (code & (0x0c00 | 0x0080)) === (dataValueInfo | 0x0080);
}

/** InfoType DataValue: the lower bits are about a value. */
const dataValueInfo = 0x0400;

function integer64(raw: unknown, signed: boolean): number {
  const [high, low] = halves(raw);
  return (signed ? high | 0 : high >>> 0) * 0x1_0000_0000 + (low >>> 0);
}

function bigInteger64(raw: unknown, signed: boolean): bigint {
  const [high, low] = halves(raw);
  return (BigInt(signed ? high | 0 : high >>> 0) << 32n) + BigInt(low >>> 0);
}

/** The library gives 64-bit integers as two halves, the higher one first. */
function halves(raw: unknown): readonly [number, number] {
  const [high, low] = isPair(raw) ? raw : [0, 0];
  return [Number(high) || 0, Number(low) || 0];
}

function isPair(raw: unknown): raw is [number, number] {
  return raw !== null && typeof raw === "object" && "length" in raw && raw.length === 2;
}

/**
 * A scalar of the other built-in types (OPC 10000-6, 5.1.2). Null: no value. Undefined: not supported, or not what the
 * library promises for the type.
 */
function scalar(type: DataType, raw: unknown): Value | undefined {
  switch (type) {
    case DataType.Boolean:
      return typeof raw === "boolean" ? raw : undefined;
    case DataType.SByte:
    case DataType.Byte:
    case DataType.Int16:
    case DataType.UInt16:
    case DataType.Int32:
    case DataType.UInt32:
      return Number.isFinite(raw) ? (raw as number) : undefined;
    case DataType.StatusCode:
      return raw instanceof StatusCode ? raw.value : undefined;
    case DataType.Null:
      return null;
    default:
      return text(type, raw ?? "");
  }
}

/** The types that are read as text; undefined for all others. A null is an empty text. */
function text(type: DataType, raw: unknown): string | undefined {
  switch (type) {
    case DataType.String:
    case DataType.XmlElement:
    case DataType.Guid:
      return typeof raw === "string" ? raw : undefined;
    case DataType.DateTime:
      return raw instanceof Date && !Number.isNaN(raw.getTime()) ? raw.toISOString() : "";
    case DataType.ByteString:
      return Buffer.isBuffer(raw) ? raw.toString("base64") : "";
    case DataType.LocalizedText:
      return (raw instanceof LocalizedText && raw.text) || "";
    case DataType.QualifiedName:
      return raw instanceof QualifiedName ? qualifiedName(raw) : "";
    case DataType.NodeId:
    case DataType.ExpandedNodeId:
      return raw instanceof NodeId ? raw.toString() : "";
    default:
      return undefined;
  }
}

function qualifiedName({ name, namespaceIndex }: QualifiedName): string {
  return namespaceIndex > 0 ? `${namespaceIndex}:${name ?? ""}` : (name ?? "");
}
