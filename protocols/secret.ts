import { inspect } from "node:util";
import { z } from "zod";

/** A password or key. Printing, logging, serialising or interpolating it yields `[secret]`; only `reveal` tells it. */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** The secret itself, for the one place that needs it. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return "[secret]";
  }

  toJSON(): string {
    return "[secret]";
  }

  [inspect.custom](): string {
    return "[secret]";
  }
}

/** A secret in a configuration file: best given as `${env:NAME}` or `${file:/path}`. Parsed to a `Secret`. */
export const secret = z
  .string({ error: () => 'a secret, best as "${env:NAME}" or "${file:/path}"' })
  .min(1, { error: () => "a secret that is not empty; is the variable or file behind it empty?" })
  .meta({ examples: ["${file:/run/secrets/password}", "${env:PASSWORD}"] })
  .transform((text) => new Secret(text));
