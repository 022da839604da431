const IDENTIFIER = /[\p{L}_\d$]/u

/** Where the text, name or comment that begins at `at` ends; `at` itself if none begins there. */
function endOfLiteral(sql: string, at: number): number {
  const after = (end: number, length: number) => (end < 0 ? sql.length : end + length)
  const char = sql[at]!
  if (char === '\'' || char === '"') {
    // In E'…' a backslash takes away the meaning of the next sign.
    const escapes = char === '\'' && /^[eE]$/.test(sql[at - 1] ?? '') && !IDENTIFIER.test(sql[at - 2] ?? ' ')
    let end = at + 1
    while (end < sql.length && sql[end] !== char) end += escapes && sql[end] === '\\' ? 2 : 1
    return Math.min(end + 1, sql.length)
  }
  if (sql.startsWith('--', at)) return after(sql.indexOf('\n', at), 1)
  if (sql.startsWith('/*', at)) {
    let depth = 1
    let end = at + 2
    for (; end < sql.length && depth; end++) {
      if (sql.startsWith('/*', end)) { depth++; end++ } else if (sql.startsWith('*/', end)) { depth--; end++ }
    }
    return end
  }
  const tag = char === '$' && !IDENTIFIER.test(sql[at - 1] ?? ' ') ? /^\$(?:[\p{L}_][\p{L}_\d]*)?\$/u.exec(sql.slice(at, at + 70))?.[0] : undefined
  return tag === undefined ? at : after(sql.indexOf(tag, at + tag.length), tag.length)
}

/** The statement with `$1`, `$2` … for each `?` that is a parameter: none in a text, a quoted name or a comment. */
export function numbered(sql: string): string {
  let made = ''
  let count = 0
  for (let at = 0; at < sql.length;) {
    const end = endOfLiteral(sql, at)
    if (end > at) {
      made += sql.slice(at, end)
      at = end
    } else {
      made += sql[at] === '?' ? `$${++count}` : sql[at]
      at++
    }
  }
  return made
}
