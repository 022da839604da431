import { z } from 'zod'
import { defineAgent, defineTool } from '#contracts/agents'
import type { Sandbox } from './sandbox.ts'
import type { Outcome } from './sandbox-process.ts'

const MAX_CODE = 50_000
const input = z.strictObject({
  code: z.string().min(1).max(MAX_CODE).describe('A whole program. The value of its last expression is the result; `await` may stand anywhere.'),
})

/** Blocks that are marked as JavaScript; the mark stands alone after the fence. */
const BLOCK = /^ {0,3}```(?:js|javascript|mjs)[ \t]*\r?\n([\s\S]*?)^ {0,3}```[ \t]*$/gim
const ORDER = /^\s*run(?: (?:js|javascript|this|code))?\s*:\s*(\S[\s\S]*)$/i

/** The code that a request contains, never code made of what it says. */
export function codeIn(text: string): string | undefined {
  const blocks = [...text.matchAll(BLOCK)].map(([, code]) => code!.trimEnd())
  const code = blocks.length ? blocks.join('\n') : ORDER.exec(text)?.[1]
  return code?.trim() && code.length <= MAX_CODE ? code : undefined
}

export function inWords({ output, cut, result, error }: Outcome): string {
  const printed = output || cut ? [`Printed:\n${output.trimEnd()}${cut ? '\n[cut: it printed more]' : ''}`] : []
  if (error) return [...printed, `Error${error.line === undefined ? '' : ` in line ${error.line}`}: ${error.message}`].join('\n')
  return [...printed, ...(result === undefined || (result === 'undefined' && printed.length) ? [] : [`Result: ${result}`])].join('\n') || 'It printed nothing, and its result is too long.'
}

export const codeTool = (sandbox: Sandbox) => defineTool({
  name: 'run_javascript',
  description: 'Runs JavaScript (ES2023) in a sandbox and tells what it printed with console.log and the value of its last expression. No network, files, timers or imports.',
  input,
  recognize(text) {
    const code = codeIn(text)
    return code === undefined ? undefined : { code }
  },
  run: async ({ code }, ctx) => inWords(await sandbox.run(code, ctx.signal)),
})

export const codeAgent = defineAgent({
  name: 'code',
  summary: 'Solves tasks by running JavaScript in a sandbox',
  tools: ['run_javascript'],
  instructions: [
    'You solve tasks with JavaScript. Write a whole program, run it with the tool "run_javascript", and answer with what it returned, never with what you expect it to return.',
    'Each run starts anew: nothing is kept between runs, and there are no network, files, timers or imports.',
    'If a run fails, correct the program and run it again. Show the program that gave the answer.',
    'If the task needs what the sandbox lacks, say so.',
  ].join('\n'),
})
