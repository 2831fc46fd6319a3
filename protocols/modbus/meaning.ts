import { Quality } from "../reading.ts";
import type { Answer } from "./link.ts";

/** What is wrong with tags, as their quality and in words. */
export interface Trouble {
  readonly quality: Quality;
  readonly why: string;
}

/** What an answer means for the tags of the request, and for the unit. */
export type Meaning =
  | { readonly is: "data"; readonly bytes: Buffer }
  /** The place cannot be read; `whole`: none of it, so that there is no use in looking for a single culprit. */
  | ({ readonly is: "refused"; readonly whole: boolean } & Trouble)
  /** The unit is there and has no time. */
  | ({ readonly is: "busy" } & Trouble)
  /** The unit is there and cannot give this. */
  | ({ readonly is: "failing" } & Trouble)
  /** Nothing that shows that the unit is alive. */
  | ({ readonly is: "unanswered" } & Trouble);

/** The exception codes are those of the Modbus Application Protocol V1.1b3, section 7. */
export function meaningOf(answer: Answer): Meaning {
  if (answer.kind === "data") return { is: "data", bytes: answer.bytes };
  if (answer.kind === "silence") return { is: "unanswered", quality: Quality.BadTimeout, why: "no answer in time" };
  if (answer.kind === "garbage") return { is: "unanswered", quality: Quality.BadDecodingError, why: answer.detail };
  const { code } = answer;
  switch (code) {
    case 1:
      return { is: "refused", whole: true, quality: Quality.BadNotSupported, why: "exception 1, illegal function" };
    case 2:
      return { is: "refused", whole: false, quality: Quality.BadNodeIdUnknown, why: "exception 2, illegal address" };
    case 3:
      return { is: "refused", whole: false, quality: Quality.BadOutOfRange, why: "exception 3, illegal value" };
    case 5:
    case 6:
      return { is: "busy", quality: Quality.BadTimeout, why: `exception ${code}, busy` };
    case 10:
      return { is: "unanswered", quality: Quality.BadNoCommunication, why: "exception 10, the gateway has no path" };
    case 11:
      return { is: "unanswered", quality: Quality.BadNoCommunication, why: "exception 11, no answer at the gateway" };
    default:
      return { is: "failing", quality: Quality.BadDeviceFailure, why: `exception ${code}, device failure` };
  }
}
