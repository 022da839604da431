import { randomFillSync } from 'node:crypto'

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'
export const ID_PATTERN = /^[0-9a-hjkmnp-tv-z]{26}$/

// Asking for each id costs more than making it.
const pool = Buffer.alloc(16 * 256)
let used = pool.length

function random(): Uint8Array {
  if (used === pool.length) { randomFillSync(pool); used = 0 }
  return pool.subarray(used, used += 16)
}

/** 26 characters that sort by time: 48 bits of milliseconds, then 80 random ones (a ULID in lower case). */
export function newId(now: number): string {
  let id = ''
  for (let left = now, at = 0; at < 10; at++, left = Math.floor(left / 32)) id = ALPHABET[left % 32] + id
  for (const byte of random()) id += ALPHABET[byte & 31]
  return id
}
