import { createHash } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { name as namePattern, valueKinds } from "../device.ts";
import { DataError } from "../errors.ts";
import type { DeviceMap, MappedTag } from "./frame.ts";
import { type DeviceMap_Tag, type DeviceMap as DeviceMapMessage, DeviceMapSchema } from "./gen/frame_pb.ts";

/** A device map as published, and the hash by which frames name it. */
export interface EncodedDeviceMap {
  /** First 16 bytes of the SHA-256 of `bytes`, as lower-case hex. */
  readonly hash: string;
  readonly bytes: Uint8Array;
}

/** The hash by which frames name a device map. */
export function deviceMapHash(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex").slice(0, 32);
}

export function encodeDeviceMap(map: DeviceMap): EncodedDeviceMap {
  const indices = new Map(map.devices.map((device, index) => [device.name, index]));
  const message = create(DeviceMapSchema, {
    edge: map.edge,
    site: map.site,
    devices: [...map.devices],
    tags: map.tags.map(({ device, range, ...tag }) => ({
      ...tag,
      device: indices.get(device)!,
      rangeLow: range?.[0],
      rangeHigh: range?.[1],
    })),
  });
  const bytes = toBinary(DeviceMapSchema, message);
  return { hash: deviceMapHash(bytes), bytes };
}

/** @throws DataError when the bytes are no device map */
export function decodeDeviceMap(bytes: Uint8Array): DeviceMap {
  let message: DeviceMapMessage;
  try {
    message = fromBinary(DeviceMapSchema, bytes);
  } catch (error) {
    throw new DataError("the device map is no valid message", { cause: error });
  }
  const seen = new Set<string>();
  const tags = message.tags.map((tag) => {
    const mapped = mappedTag(tag, message);
    const fullName = `${mapped.device}.${mapped.name}`;
    if (seen.has(fullName)) throw new DataError(`the device map holds the tag ${fullName} twice`);
    seen.add(fullName);
    return mapped;
  });
  return {
    edge: message.edge,
    site: message.site,
    devices: message.devices.map(({ name, protocol, description }) => ({ name, protocol, description })),
    tags,
  };
}

function mappedTag(tag: DeviceMap_Tag, map: DeviceMapMessage): MappedTag {
  const device = map.devices[tag.device];
  if (device === undefined)
    throw new DataError(`the device map holds the tag ${tag.name} of a device it does not hold`);
  for (const name of [device.name, tag.name]) {
    if (!namePattern.safeParse(name).success) throw new DataError(`the device map holds the impossible name "${name}"`);
  }
  const kind = valueKinds.find((known) => known === tag.kind);
  if (kind === undefined) throw new DataError(`the tag ${tag.name} is of the unknown kind "${tag.kind}"`);
  const { name, description, unit, equipment, rangeLow, rangeHigh } = tag;
  const range = rangeLow !== undefined && rangeHigh !== undefined ? ([rangeLow, rangeHigh] as const) : undefined;
  return { device: device.name, name, kind, description, unit, equipment, range };
}
