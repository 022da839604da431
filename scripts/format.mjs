#!/usr/bin/env node
// Checks the layout of every text file; `--fix` mends what can be mended. No reflowing: docs/decisions/0009 says why.
import { readFileSync, writeFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isMain } from './bootstrap.mjs'

const CODE = /\.(ts|mts|js|mjs)$/
const TEXT = /\.(ts|mts|js|mjs|json|md|yaml|yml|sh|css|html)$|(^|\/)(Dockerfile|LICENSE|\.ci\/run|\.[a-z]+(ignore|attributes|config|rc))$/
const OTHERS = /^(package-lock\.json|docs\/api\/|docs\/reference\/|config\/schema\.json)/
/** Columns, text in quotes not counted: a message cut in pieces is found by nobody. */
const LINE = 150
/** For signatures of the core and of contracts, and for tests, where a case is a row: in pieces they read worse. */
const WIDE = 190
/** With text in quotes; and for the rows of error tables. */
const TOTAL = 220
const ROW = 280

/**
 * The parts of a source that are neither comment nor literal. A `/` begins a regular expression if no value stands before it.
 * @returns {{ kind: 'code' | 'comment' | 'single' | 'double' | 'template' | 'regexp', from: number, to: number }[]}
 */
export function tokenize(text) {
  const parts = []
  const braces = []
  let at = 0
  let begin = 0
  const push = (kind, from, to) => { if (to > from) parts.push({ kind, from, to }) }
  const literal = (kind, to) => { push('code', begin, at); push(kind, at, to); at = begin = to }
  const line = from => { const end = text.indexOf('\n', from); return end < 0 ? text.length : end }
  const quoted = quote => {
    let to = at + 1
    while (to < text.length && text[to] !== quote && text[to] !== '\n') to += text[to] === '\\' ? 2 : 1
    return Math.min(to + 1, text.length)
  }
  const template = from => {
    let to = from
    while (to < text.length) {
      if (text[to] === '\\') to += 2
      else if (text[to] === '`') return { to: to + 1, open: false }
      else if (text[to] === '$' && text[to + 1] === '{') return { to: to + 2, open: true }
      else to++
    }
    return { to: text.length, open: false }
  }
  const expression = () => {
    const before = text.slice(Math.max(0, at - 200), at).trimEnd()
    // A value before it makes a slash a division.
    return /(^|[=(,:;[!&|?{}+\-*%<>~^]|\b(return|typeof|case|in|of|do|else|void|delete|throw|new|await|yield))$/.test(before.slice(-12))
      && !/(\+\+|--)$/.test(before)
  }
  if (text.startsWith('#!')) literal('comment', line(0))
  while (at < text.length) {
    const two = text.slice(at, at + 2)
    if (two === '//') literal('comment', line(at))
    else if (two === '/*') { const end = text.indexOf('*/', at + 2); literal('comment', end < 0 ? text.length : end + 2) }
    else if (text[at] === '\'') literal('single', quoted('\''))
    else if (text[at] === '"') literal('double', quoted('"'))
    else if (text[at] === '`') { const { to, open } = template(at + 1); literal('template', to); if (open) braces.push(0) }
    else if (text[at] === '{' && braces.length) { braces[braces.length - 1]++; at++ }
    else if (text[at] === '}' && braces.length) {
      if (braces[braces.length - 1] > 0) { braces[braces.length - 1]--; at++ }
      else { const { to, open } = template(at + 1); literal('template', to); if (!open) braces.pop() }
    } else if (text[at] === '/' && expression()) {
      let to = at + 1
      for (let inside = false; to < text.length && (inside || text[to] !== '/') && text[to] !== '\n'; to++) {
        if (text[to] === '\\') to++
        else if (text[to] === '[') inside = true
        else if (text[to] === ']') inside = false
      }
      literal('regexp', Math.min(to + 1, text.length))
    } else at++
  }
  push('code', begin, at)
  return parts
}

const isRow = line => /^\s*[A-Z][A-Z0-9_]*: \{|\bmessage: '|^\s*fix: '/.test(line)

/** How wide each line is without what stands in quotes. */
function widths(lines) {
  const text = lines.join('\n')
  const quoted = tokenize(text).filter(part => part.kind !== 'code' && part.kind !== 'comment')
  let from = 0
  return lines.map(line => {
    const to = from + line.length
    const covered = quoted.reduce((sum, part) => sum + Math.max(0, Math.min(part.to, to) - Math.max(part.from, from)), 0)
    from = to + 1
    return line.length - covered
  })
}

/** What is wrong with a text, and how it is right; what cannot be mended is left. */
export function format(path, text) {
  const first = pass(path, text)
  let fixed = first.fixed
  // Mending one thing may show another, as a quote that was a text until now. Each pass leaves less of them.
  for (let next = pass(path, fixed).fixed; next !== fixed; next = pass(path, fixed).fixed) fixed = next
  return { problems: first.problems, fixed }
}

/** @returns {{ problems: { line: number, what: string }[], fixed: string }} */
function pass(path, text) {
  const problems = []
  const tell = (line, what) => problems.push({ line, what })
  const lineOf = index => text.slice(0, index).split('\n').length
  let fixed = text
  if (text.includes('\r')) { tell(1, 'line ends with CR LF'); fixed = fixed.replace(/\r\n?/g, '\n') }
  if (CODE.test(path)) {
    const out = []
    for (const { kind, from, to } of tokenize(fixed)) {
      let part = fixed.slice(from, to)
      if (kind === 'double' && part.length > 1 && part.endsWith('"') && !part.includes('\'') && !part.includes('\\')) {
        tell(lineOf(from), 'double quotes where single ones do')
        part = `'${part.slice(1, -1)}'`
      } else if (kind === 'code') {
        for (const found of part.matchAll(/\t/g)) tell(lineOf(from + found.index), 'a tab')
        part = part.replace(/\t/g, '  ')
        part = part.replace(/;+(?= *(?:\n|$))/g, (found, index) => {
          const next = fixed.slice(from + index + found.length, from + index + 200)
          // Without it, what stands in the next line would go on from this one.
          const ends = /^ *(\n|$|\/\/|\/\*.*\*\/ *\n)/.test(next) && !/^\s*[([`+-]|^\s*\/[^/*]/.test(next)
          if (!ends) return found
          tell(lineOf(from + index), 'a semicolon at the end of the line')
          return ''
        })
      }
      out.push(part)
    }
    fixed = out.join('')
  } else if (/\.(ya?ml|json)$/.test(path) && fixed.includes('\t')) tell(lineOf(fixed.indexOf('\t')), 'a tab')
  const lines = fixed.split('\n').map((line, index) => {
    if (!/[ \t]+$/.test(line)) return line
    tell(index + 1, 'blanks at the end of the line')
    return line.trimEnd()
  })
  if (CODE.test(path)) {
    const limit = path.startsWith('core/') || path.startsWith('test/') || path.endsWith('/contract.ts') ? WIDE : LINE
    widths(lines).forEach((width, index) => {
      const total = isRow(lines[index]) || path.startsWith('test/') ? ROW : TOTAL
      if (lines[index].length > total) tell(index + 1, `${lines[index].length} columns, of at most ${total}`)
      else if (width > limit) tell(index + 1, `${width} columns besides text in quotes, of at most ${limit}`)
    })
  }
  fixed = lines.join('\n')
  if (fixed !== '' && !/[^\n]\n$/.test(fixed)) { tell(lines.length, 'not exactly one newline at the end'); fixed = `${fixed.replace(/\n+$/, '')}\n` }
  return { problems, fixed }
}

function main(root, args) {
  const fix = args.includes('--fix')
  const named = args.filter(arg => !arg.startsWith('--'))
  const files = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard', ...named], { cwd: root, encoding: 'utf8' })
    .split('\0').filter(path => TEXT.test(path) && !OTHERS.test(path))
  let left = 0
  for (const path of [...new Set(files)].toSorted()) {
    let text
    try { text = readFileSync(join(root, path), 'utf8') } catch (error) { if (error.code === 'ENOENT') continue; throw error }
    const { problems, fixed } = format(path, text)
    let remaining = problems
    if (fix && fixed !== text) {
      writeFileSync(join(root, path), fixed)
      remaining = format(path, fixed).problems
    }
    for (const { line, what } of remaining) console.log(`${path}:${line}: ${what}`)
    left += remaining.length
  }
  if (left) console.log(`${left} to mend${fix ? ' by hand' : '; `npm run format -- --fix` mends all but long lines'}`)
  process.exitCode = left ? 1 : 0
}

if (isMain(import.meta.url)) main(dirname(dirname(fileURLToPath(import.meta.url))), process.argv.slice(2))
