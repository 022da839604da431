type Version = readonly [number, number, number]

const compare = (a: Version, b: Version): number => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]

/** One comparator such as `^1.2`, as the half-open interval that it allows; undefined if it is none. */
function interval(text: string): { from: Version; to: Version } | undefined {
  const match = /^(\^|~>?|>=|<=|>|<|=)?\s*v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?(?:[-+][\w.+-]*)?$/.exec(text)
  if (!match) return undefined
  const given = match.slice(2).filter(part => part !== undefined && !/[xX*]/.test(part)).map(Number)
  const [major = 0, minor = 0, patch = 0] = given
  const from: Version = [major, minor, patch]
  const top: Version = [Infinity, 0, 0]
  // The first version that a bare `1`, `1.2` or `1.2.3` no longer means.
  const after: Version = given.length === 0 ? top : given.length === 1 ? [major + 1, 0, 0] : given.length === 2 ? [major, minor + 1, 0] : [major, minor, patch + 1]
  switch (match[1]) {
    case '^': return { from, to: major || given.length < 2 ? (given.length ? [major + 1, 0, 0] : top) : minor || given.length < 3 ? [0, minor + 1, 0] : [0, 0, patch + 1] }
    case '~': case '~>': return { from, to: given.length === 3 ? [major, minor + 1, 0] : after }
    case '>=': return { from, to: top }
    case '>': return { from: after, to: top }
    case '<': return { from: [0, 0, 0], to: from }
    case '<=': return { from: [0, 0, 0], to: after }
    default: return { from, to: after }
  }
}

/** Is `version` in an npm version range? `undefined` if this is no range of versions (a tag, a URL, `workspace:*`). Pre-releases count as their release. */
export function satisfies(version: string, range: string): boolean | undefined {
  const numbers = /^v?(\d+)\.(\d+)\.(\d+)/.exec(version)
  if (!numbers) return undefined
  const mine: Version = [Number(numbers[1]), Number(numbers[2]), Number(numbers[3])]
  let any = false
  for (const alternative of range.split('||')) {
    const text = alternative.trim().replace(/^(\S+)\s+-\s+(\S+)$/, '>=$1 <=$2').replace(/(\^|~>?|[<>]=?|=)\s+/g, '$1')
    const parts = (text || '*').split(/\s+/).map(interval)
    if (parts.some(part => !part)) return undefined
    any ||= parts.every(part => compare(mine, part!.from) >= 0 && compare(mine, part!.to) < 0)
  }
  return any
}
