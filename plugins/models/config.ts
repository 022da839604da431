import { z } from 'zod'

const name = z.string().regex(/^[^/\s]+\/\S+$|^[^/\s]+$/, 'is neither `provider/model` nor an alias')

/** Follows aliases to `provider/model`; undefined where they end in nothing or go round in a circle. */
export function resolveAlias(aliases: Readonly<Record<string, string>>, model: string): string | undefined {
  const seen = new Set<string>()
  let at: string | undefined = model
  while (at !== undefined && !at.includes('/')) {
    if (seen.has(at)) return undefined
    seen.add(at)
    at = Object.hasOwn(aliases, at) ? aliases[at] : undefined
  }
  return at
}

/** An agent that names no model uses `default`, which is there even when config says nothing of it. */
export const withDefault = (aliases: Readonly<Record<string, string>>): Record<string, string> => ({ default: 'offline/deterministic', ...aliases })

export const config = z.strictObject({
  aliases: z.record(z.string().regex(/^[^/\s]+$/, 'an alias holds neither a slash nor blanks'), name).default({})
    .superRefine((aliases, check) => {
      for (const [alias, target] of Object.entries(aliases)) {
        if (resolveAlias(withDefault(aliases), alias) === undefined) check.addIssue({ code: 'custom', path: [alias], message: `"${target}" leads to no \`provider/model\`` })
      }
    })
    .describe('Names for models, such as `fast: openai/gpt-5-mini`. `default` is what an agent uses that names none; it is offline/deterministic if not set'),
})
export type Config = z.output<typeof config>
