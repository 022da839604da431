import { definePlugin } from 'backplane'
import { PermissionInfo } from 'backplane/contracts/access'
import { JobType, type JobContext } from 'backplane/contracts/jobs'
import { z } from 'zod'

/** Checked when the job is submitted. */
const input = z.strictObject({
  texts: z.array(z.string().max(100_000)).min(1).max(1_000).describe('The texts to count.'),
})
type Input = z.output<typeof input>

/** Each step is recorded: after a crash or a retry its result is read, and only what is missing runs again. */
export async function run({ input: { texts }, signal, step, emit }: JobContext<Input>): Promise<{ words: number; longest: string }> {
  const counts: { word: string; count: number }[] = []
  for (const [at, text] of texts.entries()) {
    signal.throwIfAborted()
    counts.push(await step('count', async () => {
      const words = text.split(/\s+/u).filter(Boolean)
      return { word: words.reduce((longest, word) => (word.length > longest.length ? word : longest), ''), count: words.length }
    }))
    emit({ type: 'progress', percent: Math.round(((at + 1) / texts.length) * 100) })
  }
  const longest = counts.reduce((best, { word }) => (word.length > best.length ? word : best), '')
  return { words: counts.reduce((sum, { count }) => sum + count, 0), longest }
}

export default definePlugin({
  name: '{{name}}',
  summary: 'Jobs of type {{name}}: count words and find the longest',
  contributes: [JobType, PermissionInfo],
  setup(ctx) {
    ctx.contribute(JobType, { type: '{{name}}', summary: 'Counts words', input, permission: '{{name}}:run', run })
    ctx.contribute(PermissionInfo, { name: '{{name}}:run', summary: 'Submit jobs that count words' })
  },
})
