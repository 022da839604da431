import { spawn, type ChildProcess } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { freePort } from './shared.ts'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const RUN_MS = 60_000
const READY_MS = 30_000
/** For people's eyes: pictures, and what a program printed. */
const SHOWN = new Set(['text', 'diagram', 'mermaid', 'diff'])

export interface Block {
  readonly line: number
  readonly language: string
  readonly marks: ReadonlySet<string>
  readonly file: string | undefined
  readonly text: string
  /** The ```text block that follows at once: what the program must print. */
  readonly output: string | undefined
}

/** The fenced blocks of a page. Throws, with the line, for one that is not closed. */
export function blocksOf(markdown: string): Block[] {
  const blocks: { line: number; end: number; info: string; text: string }[] = []
  const lines = markdown.split('\n')
  for (let at = 0; at < lines.length; at++) {
    const fence = /^( {0,3})(`{3,}|~{3,})(.*)$/.exec(lines[at]!)
    if (!fence) continue
    const close = lines.findIndex((line, index) => index > at && new RegExp(`^ {0,3}${fence[2]}+\\s*$`).test(line))
    if (close < 0) throw new Error(`line ${at + 1}: this block is not closed`)
    blocks.push({ line: at + 1, end: close + 1, info: fence[3]!.trim(), text: `${lines.slice(at + 1, close).join('\n')}\n` })
    at = close
  }
  return blocks.map(({ line, end, info, text }, index) => {
    const [language = '', ...words] = info.split(/\s+/)
    const next = blocks[index + 1]
    const follows = next?.info === 'text' && lines.slice(end, next.line - 1).every(each => each.trim() === '')
    const file = words.find(word => word.startsWith('file='))?.slice('file='.length)
    return { line, language, marks: new Set(words.filter(word => !word.includes('='))), file, text, output: follows ? next.text : undefined }
  })
}

/** Blocks that say neither how they are tested nor that they are only shown. */
export function unmarked(blocks: readonly Block[]): string[] {
  return blocks.flatMap(({ line, language, marks, file }) => {
    const known = ({ ts: ['run'], js: ['run'], sh: ['run', 'server'], yaml: ['config'], json: [] } as Record<string, string[]>)[language]
    if (SHOWN.has(language)) return marks.size ? [`line ${line}: \`${language}\` takes no marks`] : []
    if (!known) return [`line ${line}: \`${language || 'a block without a language'}\` is not tested; mark it \`text\` if it is only shown`]
    const wrong = [...marks].filter(mark => !known.includes(mark))
    if (wrong.length) return [`line ${line}: \`${language}\` does not know the mark \`${wrong.join(' ')}\`; it knows ${[...known, 'file=<name>'].join(', ')}`]
    if (file !== undefined && !inside(file)) return [`line ${line}: \`${file}\` leads out of the page's folder`]
    const said = marks.size > 0 || file !== undefined || language === 'json'
    return said ? [] : [`line ${line}: \`${language}\` needs a mark: ${[...known, 'file=<name>'].join(', ')}`]
  })
}

const inside = (file: string): boolean => !relative('/page', resolve('/page', file)).startsWith('..')

/** Is `actual` what the page shows? `…` stands for anything in a line, or for any lines if it is alone in its own. */
export function matches(expected: string, actual: string): boolean {
  const clean = (text: string) => text.replace(/\x1b\[[0-9;]*m/g, '').split('\n').map(line => line.trimEnd()).join('\n').trim()
  const literal = (line: string) => line.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replaceAll('…', '.*?')
  const pattern = clean(expected).split('\n').map(line => (line.trim() === '…' ? '(?:.*\\n)*?' : `${literal(line)}\\n`)).join('')
  return new RegExp(`^${pattern}$`).test(`${clean(actual)}\n`)
}

/** One page at work: its blocks are done in order, in a folder of their own inside the repository, so that `backplane` is found as a package. */
class Page {
  readonly #folder = mkdtempSync(join(root, '.docs-'))
  readonly #servers: ChildProcess[] = []
  readonly #env: NodeJS.ProcessEnv
  constructor(readonly name: string, readonly port: number) {
    const bin = join(this.#folder, '.bin')
    mkdirSync(bin)
    const cli = `exec '${process.execPath}' '${join(root, 'scripts/backplane.mjs')}'`
    const script = `[ "$1" = "-s" ] && shift; [ "$1" = backplane ] || exit 64; shift; [ "$1" = "--" ] && shift; ${cli} "$@"`
    const programs = {
      backplane: `${cli} "$@"`,
      npm: `case "$1" in start) shift; [ "$1" = "--" ] && shift; ${cli} start "$@";; run) shift; ${script};; *) exit 64;; esac`,
      npx: `[ "$1" = backplane ] || exit 64; shift; ${cli} "$@"`,
    }
    for (const [program, body] of Object.entries(programs)) {
      writeFileSync(join(bin, program), `#!/bin/sh\n${body}\n`)
      chmodSync(join(bin, program), 0o755)
    }
    const ours = Object.entries(process.env).filter(([key]) => !/^(BACKPLANE|NODE_ENV$|npm_|PORT$|DATA_DIR$)/.test(key))
    const set = { PATH: `${bin}:${process.env['PATH']}`, PORT: String(port), DATA_DIR: join(this.#folder, 'data'), NO_COLOR: '1' }
    this.#env = { ...Object.fromEntries(ours), ...set }
  }

  async run(blocks: readonly Block[]): Promise<void> {
    for (const block of blocks) {
      if (block.file !== undefined) {
        mkdirSync(dirname(join(this.#folder, block.file)), { recursive: true })
        writeFileSync(join(this.#folder, block.file), block.text)
      }
    }
    await this.#typeCheck(blocks)
    for (const block of blocks) {
      try { await this.#do(block) } catch (error) { throw new Error(`${this.name}:${block.line}: ${error instanceof Error ? error.message : error}`) }
    }
  }

  async #do(block: Block): Promise<void> {
    const { language, marks, text } = block
    if (language === 'json') JSON.parse(text)
    if (language === 'yaml' && marks.has('config')) {
      const file = block.file ?? `line-${block.line}.yaml`
      writeFileSync(join(this.#folder, file), text)
      const { code, output } = await this.#exec('sh', ['-c', `backplane config check --config '${file}'`])
      if (code !== 0) throw new Error(`backplane config check ended with ${code}:\n${output}`)
    }
    if (marks.has('server')) return this.#serve(text)
    if (!marks.has('run')) return
    const { code, output } = language === 'sh'
      ? await this.#exec('bash', ['-eu', '-o', 'pipefail', '-c', text.replace(/\b(localhost|127\.0\.0\.1):\d{4,5}\b/g, `$1:${this.port}`)])
      : await this.#exec(process.execPath, ['--import', import.meta.resolve('tsx'), this.#fileOf(block)])
    if (code !== 0) throw new Error(`ended with ${code}:\n${output}`)
    if (block.output !== undefined && !matches(block.output, output.replaceAll(`:${this.port}`, ':8000'))) {
      throw new Error(`printed\n${output}\nand not\n${block.output}`)
    }
  }

  #fileOf(block: Block): string { return block.file ?? `line-${block.line}.${block.language}` }

  async #typeCheck(blocks: readonly Block[]): Promise<void> {
    const code = blocks.filter(({ language }) => language === 'ts' || language === 'js')
    for (const block of code) writeFileSync(join(this.#folder, this.#fileOf(block)), block.text)
    const files = code.filter(({ language }) => language === 'ts').map(block => this.#fileOf(block))
    if (!files.length) return
    const compilerOptions = {
      strict: true, noEmit: true, skipLibCheck: true, module: 'NodeNext', target: 'ES2023', lib: ['ES2023', 'ESNext.Disposable'],
      types: ['node', 'mocha'], typeRoots: [join(root, 'node_modules/@types')], allowImportingTsExtensions: true, verbatimModuleSyntax: true,
    }
    writeFileSync(join(this.#folder, 'tsconfig.docs.json'), JSON.stringify({ compilerOptions, files }))
    const tsc = join(root, 'node_modules/typescript/bin/tsc')
    const { code: exit, output } = await this.#exec(process.execPath, [tsc, '-p', 'tsconfig.docs.json', '--pretty', 'false'])
    if (exit !== 0) throw new Error(`${this.name}: does not compile:\n${output}`)
  }

  async #serve(text: string): Promise<void> {
    // A group of its own, so that what the shell started ends with it.
    const child = spawn('bash', ['-eu', '-c', text], { cwd: this.#folder, env: this.#env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    this.#servers.push(child)
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream!.on('data', chunk => { output += chunk })
    for (const until = Date.now() + READY_MS; Date.now() < until; await sleep(100)) {
      if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}:\n${output}`)
      const answer = await fetch(`http://127.0.0.1:${this.port}/health/ready`).catch(() => undefined)
      await answer?.body?.cancel()
      if (answer?.ok) return
    }
    throw new Error(`the server was not ready within ${READY_MS} ms:\n${output}`)
  }

  #exec(file: string, args: readonly string[]): Promise<{ code: number | null; output: string }> {
    return new Promise((done, fail) => {
      const child = spawn(file, args, { cwd: this.#folder, env: this.#env, stdio: ['ignore', 'pipe', 'pipe'], timeout: RUN_MS, killSignal: 'SIGKILL' })
      let output = ''
      for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { output += chunk })
      child.once('error', fail)
      child.once('close', code => done({ code, output }))
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) {
      if (server.exitCode !== null || server.signalCode !== null) continue
      const closed = new Promise(done => server.once('close', done))
      process.kill(-server.pid!, 'SIGTERM')
      const timer = setTimeout(() => process.kill(-server.pid!, 'SIGKILL'), READY_MS)
      await closed
      clearTimeout(timer)
    }
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** Does what a page says. Throws with the line of the block that does not do what it promises. */
export async function runPage(name: string, markdown: string): Promise<void> {
  const blocks = blocksOf(markdown)
  const problems = unmarked(blocks)
  if (problems.length) throw new Error(problems.map(problem => `${name}: ${problem}`).join('\n'))
  await using page = new Page(name, await freePort())
  await page.run(blocks)
}
