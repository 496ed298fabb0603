// Reads event files by the wire format alone (protobuf.dev/programming-guides/encoding), without the
// writer's code and its checksums.

export interface ReadEvent {
  readonly wallTime: number;
  readonly step: number;
  readonly version?: string;
  readonly sessionStatus?: number;
  readonly scalars: Readonly<Record<string, number>>;
}

/** Bit by bit and from the polynomial alone. */
function checksum(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit++) {
      const low = (crc ^ (byte >> bit)) & 1;
      crc = (crc >>> 1) ^ (low ? 0x82f63b78 : 0);
    }
  }
  const plain = BigInt(~crc >>> 0);
  const rotated = (plain >> 15n) | ((plain << 17n) & 0xffffffffn);
  return Number((rotated + 0xa282ead8n) & 0xffffffffn);
}

type Field = { number: number; value: number | Buffer };

function fieldsOf(message: Buffer): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const key = varint();
    const number = key >> 3;
    switch (key & 7) {
      case 0:
        fields.push({ number, value: varint() });
        break;
      case 1:
        fields.push({ number, value: message.readDoubleLE(at) });
        at += 8;
        break;
      case 2: {
        const length = varint();
        fields.push({ number, value: message.subarray(at, at + length) });
        at += length;
        break;
      }
      case 5:
        fields.push({ number, value: message.readFloatLE(at) });
        at += 4;
        break;
      default:
        throw new Error(`wire type ${key & 7}`);
    }
  }
  return fields;
}

export function readEvents(file: Buffer): ReadEvent[] {
  const events: ReadEvent[] = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    const data = file.subarray(at + 12, at + 12 + length);
    if (file.readUInt32LE(at + 8) !== checksum(file.subarray(at, at + 8)))
      throw new Error("length");
    if (file.readUInt32LE(at + 12 + length) !== checksum(data)) throw new Error("data");
    events.push(toEvent(data));
    at += length + 16;
  }
  return events;
}

function toEvent(data: Buffer): ReadEvent {
  const find = (number: number) => fieldsOf(data).find((field) => field.number === number)?.value;
  const [summary, log, version] = [find(5), find(7), find(3)] as (Buffer | undefined)[];
  const scalars = (summary === undefined ? [] : fieldsOf(summary)).map(({ value }) => {
    const [tag, simple] = fieldsOf(value as Buffer);
    return [String(tag!.value), simple!.value as number] as const;
  });
  return {
    wallTime: find(1) as number,
    step: (find(2) as number | undefined) ?? 0,
    ...(version && { version: version.toString() }),
    ...(log && { sessionStatus: fieldsOf(log)[0]!.value as number }),
    scalars: Object.fromEntries(scalars),
  };
}
