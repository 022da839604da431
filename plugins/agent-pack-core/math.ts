import { z } from 'zod'
import { defineAgent, defineTool } from '#contracts/agents'
import type { Calculator } from './calculator.ts'
import { MAX_EXPRESSION, type Outcome } from './expression.ts'

const MAX_EXPRESSIONS = 20
const input = z.strictObject({
  expressions: z.array(z.string().min(1).max(MAX_EXPRESSION)).min(1).max(MAX_EXPRESSIONS).describe('Each one complete: "(2+3)*7", "15% of 80", "5 km to miles".'),
  rest: z.boolean().optional().describe('True if the request asks for computations that are not among these; the answer then says so.'),
})

const REST = 'Only this could be read as a calculation; the rest of the request was left out.'

const sentence = ({ expression, result, exact, natural, error }: Outcome): string =>
  error === undefined ? `${expression}${natural ? ' (natural)' : ''} ${exact ? '=' : '≈'} ${result}` : `${expression} can't be computed: ${error}`

export const calculatorTool = (calculator: Calculator) => defineTool({
  name: 'calculator',
  description: 'Computes arithmetic exactly: + - * / ^ %, percentages ("15% of 80"), roots, logarithms, trigonometry, units ("5 km to miles"). Use it for every calculation.',
  input,
  recognize(text) {
    const { expressions, rest } = calculator.find(text, MAX_EXPRESSIONS)
    return expressions.length ? { expressions, ...(rest && { rest }) } : undefined
  },
  async run({ expressions, rest }, ctx) {
    const results: Outcome[] = []
    for (const expression of expressions) results.push(await calculator.evaluate(expression, ctx.signal))
    return { results, text: [...results.map(sentence), ...(rest ? [REST] : [])].join('\n') }
  },
})

export const mathAgent = defineAgent({
  name: 'math',
  summary: 'Computes: arithmetic, percentages, functions, units',
  tools: ['calculator'],
  instructions: [
    'You answer questions that can be computed. Compute with the tool "calculator", never in your head, and give its results as they are.',
    'If a question can\'t be computed with it, say so.',
  ].join('\n'),
})
