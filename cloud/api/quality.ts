import type { Quality } from "../../protocols/reading.ts";

/**
 * The OPC UA status codes that a reading can meaningfully carry, by the upper half of the code (the lower half holds
 * flags: limits reached, overflow, the kind of value). Names and numbers: OPC Foundation, StatusCode.csv.
 */
const statusNames: Readonly<Record<number, string>> = {
  0: "Good",
  45: "GoodSubscriptionTransferred",
  46: "GoodCompletesAsynchronously",
  47: "GoodOverload",
  48: "GoodClamped",
  150: "GoodLocalOverride",
  162: "GoodEntryInserted",
  163: "GoodEntryReplaced",
  165: "GoodNoData",
  166: "GoodMoreData",
  16384: "Uncertain",
  16492: "UncertainReferenceOutOfServer",
  16527: "UncertainNoCommunicationLastUsableValue",
  16528: "UncertainLastUsableValue",
  16529: "UncertainSubstituteValue",
  16530: "UncertainInitialValue",
  16531: "UncertainSensorNotAccurate",
  16532: "UncertainEngineeringUnitsExceeded",
  16533: "UncertainSubNormal",
  16548: "UncertainDataSubNormal",
  32768: "Bad",
  32769: "BadUnexpectedError",
  32770: "BadInternalError",
  32771: "BadOutOfMemory",
  32772: "BadResourceUnavailable",
  32773: "BadCommunicationError",
  32774: "BadEncodingError",
  32775: "BadDecodingError",
  32776: "BadEncodingLimitsExceeded",
  32777: "BadUnknownResponse",
  32778: "BadTimeout",
  32779: "BadServiceUnsupported",
  32780: "BadShutdown",
  32781: "BadServerNotConnected",
  32782: "BadServerHalted",
  32783: "BadNothingToDo",
  32784: "BadTooManyOperations",
  32785: "BadDataTypeIdUnknown",
  32799: "BadUserAccessDenied",
  32803: "BadInvalidTimestamp",
  32817: "BadNoCommunication",
  32818: "BadWaitingForInitialData",
  32819: "BadNodeIdInvalid",
  32820: "BadNodeIdUnknown",
  32821: "BadAttributeIdInvalid",
  32822: "BadIndexRangeInvalid",
  32823: "BadIndexRangeNoData",
  32824: "BadDataEncodingInvalid",
  32825: "BadDataEncodingUnsupported",
  32826: "BadNotReadable",
  32827: "BadNotWritable",
  32828: "BadOutOfRange",
  32829: "BadNotSupported",
  32830: "BadNotFound",
  32831: "BadObjectDeleted",
  32832: "BadNotImplemented",
  32884: "BadTypeMismatch",
  32905: "BadConfigurationError",
  32906: "BadNotConnected",
  32907: "BadDeviceFailure",
  32908: "BadSensorFailure",
  32909: "BadOutOfService",
  32923: "BadNoData",
  32925: "BadDataLost",
  32926: "BadDataUnavailable",
  32942: "BadConnectionClosed",
  32943: "BadInvalidState",
  32945: "BadNoDataAvailable",
};

export const severities = ["good", "uncertain", "bad"] as const;
export type Severity = (typeof severities)[number];

/** Severity by the top two bits; the reserved pattern 11 counts as bad. */
export function severityOf(quality: Quality): Severity {
  return severities[Math.min(quality >>> 30, 2)]!;
}

/** The name of a status code (`BadTimeout`); for one that is not in the table its severity and number (`Bad 0x80FF0000`). */
export function statusName(quality: Quality): string {
  const name = statusNames[quality >>> 16];
  if (name) return name;
  const severity = severityOf(quality);
  const code = (quality >>> 0).toString(16).toUpperCase().padStart(8, "0");
  return `${severity[0]!.toUpperCase()}${severity.slice(1)} 0x${code}`;
}
