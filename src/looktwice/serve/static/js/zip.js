// Writes a ZIP archive without compression: marks travel with their query images in one file.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit += 1) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

const UTF8 = 0x0800; // names are UTF-8
const DAY = 0x5a21; // 1 January 2025: an archive says nothing about when it was made

/** Return the bytes of an archive of [name, Uint8Array] pairs. */
export function zip(files) {
  const parts = [], directory = [];
  let offset = 0;
  for (const [name, bytes] of files) {
    const label = new TextEncoder().encode(name);
    const about = [20, UTF8, 0, 0, DAY, [crc32(bytes)], [bytes.length], [bytes.length], label.length, 0];
    const head = record(0x04034b50, about);
    directory.push(record(0x02014b50, [20, ...about, 0, 0, 0, [0], [offset]]), label);
    parts.push(head, label, bytes);
    offset += head.length + label.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = record(0x06054b50, [0, 0, files.length, files.length, [size], [offset], 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** Return a signature and fields in little-endian order: a number takes 2 bytes, a number in brackets 4. */
function record(signature, fields) {
  const bytes = new Uint8Array(4 + fields.reduce((sum, field) => sum + (Array.isArray(field) ? 4 : 2), 0));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, signature, true);
  let at = 4;
  for (const field of fields) {
    if (Array.isArray(field)) { view.setUint32(at, field[0], true); at += 4; }
    else { view.setUint16(at, field, true); at += 2; }
  }
  return bytes;
}
