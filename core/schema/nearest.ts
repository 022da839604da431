/** How many letters must be changed, added, left out or exchanged with their neighbour. */
function distance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, at) => at)]
  for (let i = 1; i <= a.length; i++) {
    const row = rows[i] = [i]
    for (let j = 1; j <= b.length; j++) {
      row[j] = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) row[j] = Math.min(row[j]!, rows[i - 2]![j - 2]! + 1)
    }
  }
  return rows[a.length]![b.length]!
}

/** The names that `name` was most likely meant to be, best first, at most three. */
export function nearest(name: string, known: Iterable<string>): string[] {
  // A plugin may be named by its folder.
  const plain = (text: string) => text.toLowerCase().replace(/^\.\/|[-_\s]/g, '').slice(0, 100)
  const wanted = plain(name)
  const limit = Math.max(1, Math.floor(wanted.length / 3))
  return [...new Set(known)]
    .map(each => ({ each, far: plain(each).startsWith(wanted) && wanted.length > 2 ? 1 : distance(wanted, plain(each)) }))
    .filter(({ far }) => far <= limit)
    .sort((a, b) => a.far - b.far || (a.each < b.each ? -1 : 1))
    .slice(0, 3).map(({ each }) => each)
}

/** `Did you mean "x"? `, to stand before what is known; nothing if nothing is near. */
export function meant(name: string, known: Iterable<string>): string {
  const close = nearest(name, known)
  return close.length ? `Did you mean ${close.map(each => `"${each}"`).join(' or ')}? ` : ''
}

/** What to tell somebody who wrote a name that is not known. */
export function didYouMean(name: string, known: Iterable<string>): string {
  const all = [...new Set(known)].sort()
  const close = meant(name, all)
  if (close) return close.trimEnd()
  return all.length ? `Known here: ${all.slice(0, 20).join(', ')}${all.length > 20 ? '…' : ''}.` : 'Nothing is known here.'
}
