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

/** Every text of a prompt: what people, tools and models said. Files are not among them. */
export function* textsOf(prompt: LanguageModelV3Prompt): Generator<string, void> {
  const text = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value) ?? '')
  for (const message of prompt) {
    if (message.role === 'system') { yield message.content; continue }
    for (const part of message.content) {
      if (part.type === 'text' || part.type === 'reasoning') yield part.text
      else if (part.type === 'tool-call') yield text(part.input)
      else if (part.type === 'tool-result') yield text('value' in part.output ? part.output.value : part.output.reason ?? '')
    }
  }
}

/** What a prompt counts, by our own count. */
export function countPrompt(prompt: LanguageModelV3Prompt): number {
  let count = 0
  for (const text of textsOf(prompt)) count += countTokens(text)
  return count
}

export const usageOf = (input: number, output: number): LanguageModelV3Usage => ({
  inputTokens: { total: input, noCache: input, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: output, text: output, reasoning: undefined },
})
