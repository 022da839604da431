import type { LanguageModelV3Prompt, LanguageModelV3Usage } from '@ai-sdk/provider'

const PIECE = /\s*(?:[\p{L}\p{M}]+|\p{N}+|[^\s\p{L}\p{M}\p{N}])|\s+$/gu

/** Cuts text into words, numbers and single symbols, each with the blanks before it. Joined, they are the text again. */
export const pieces = (text: string): string[] => text.match(PIECE) ?? []
/** Our own count of tokens: one for each piece. Vendors' own figures differ. */
export function countTokens(text: string): number {
  let count = 0
  PIECE.lastIndex = 0
  while (PIECE.exec(text)) count++
  return count
}

/** What a prompt counts, by our own count. Files are not counted. */
export function countPrompt(prompt: LanguageModelV3Prompt): number {
  let count = 0
  const add = (value: unknown) => { count += countTokens(typeof value === 'string' ? value : JSON.stringify(value) ?? '') }
  for (const message of prompt) {
    if (message.role === 'system') { add(message.content); continue }
    for (const part of message.content) {
      if (part.type === 'text' || part.type === 'reasoning') add(part.text)
      else if (part.type === 'tool-call') add(part.input)
      else if (part.type === 'tool-result') add('value' in part.output ? part.output.value : part.output.reason ?? '')
    }
  }
  return count
}

export const usageOf = (input: number, output: number): LanguageModelV3Usage => ({
  inputTokens: { total: input, noCache: input, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: output, text: output, reasoning: undefined },
})
