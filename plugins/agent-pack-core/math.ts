import { z } from 'zod'
import { defineAgent, defineTool } from '#contracts/agents'
import type { Calculator } from './calculator.ts'
import { readDateQuestions } from './date-sentence.ts'
import { MAX_AMOUNT, MAX_DATE, OPERATIONS, UNITS, type DateAnswer, type Dates, type Unit } from './dates.ts'
import { MAX_EQUATIONS, type Solved } from './equation.ts'
import { MAX_EXPRESSION, type Outcome } from './expression.ts'

const MAX_EXPRESSIONS = 20
const text = z.string().min(1).max(MAX_EXPRESSION)

const REST = 'Only this could be read as a calculation; the rest of the request was left out.'

const sentence = ({ expression, result, exact, natural, error }: Outcome): string =>
  error === undefined ? `${expression}${natural ? ' (natural)' : ''} ${exact ? '=' : '≈'} ${result}` : `${expression} can't be computed: ${error}`

export const calculatorTool = (calculator: Calculator) => defineTool({
  name: 'calculator',
  description: 'Computes arithmetic exactly: + - * / ^ %, percentages ("15% of 80"), roots, logarithms, trigonometry, units ("5 km to miles"). Use it for every calculation.',
  input: z.strictObject({
    expressions: z.array(text).min(1).max(MAX_EXPRESSIONS).describe('Each one complete: "(2+3)*7", "15% of 80", "5 km to miles".'),
    rest: z.boolean().optional().describe('True if the request asks for computations that are not among these; the answer then says so.'),
  }),
  recognize(request) {
    const { expressions, rest } = calculator.find(request, MAX_EXPRESSIONS)
    return expressions.length ? { expressions, ...(rest && { rest }) } : undefined
  },
  async run({ expressions, rest }, ctx) {
    const results: Outcome[] = []
    for (const expression of expressions) results.push(await calculator.evaluate(expression, ctx.signal))
    return { results, text: [...results.map(sentence), ...(rest ? [REST] : [])].join('\n') }
  },
})

const solution = ({ equations, text: answer, error }: Solved): string => `${equations.join(' and ')}: ${error === undefined ? answer : `can't be solved: ${error}`}`

export const solverTool = (calculator: Calculator) => defineTool({
  name: 'solver',
  description: 'Solves equations exactly: polynomials in one unknown, quotients of them, systems of linear equations. Use it for every equation.',
  input: z.strictObject({
    systems: z.array(z.strictObject({
      equations: z.array(text).min(1).max(MAX_EQUATIONS).describe('All that hold at the same time, each with one =. Unknowns are single letters, which an index may follow: "x + y = 10", "x1 - x2 = 2".'),
    })).min(1).max(MAX_EQUATIONS).describe('Each one is solved for itself.'),
  }),
  recognize(request) {
    const systems = calculator.findEquations(request)?.systems
    return systems && { systems: systems.map(equations => ({ equations: [...equations] })) }
  },
  async run({ systems }, ctx) {
    const results: Solved[] = []
    for (const { equations } of systems) results.push(await calculator.solve(equations, ctx.signal))
    return { results, text: results.map(solution).join('\n') }
  },
})

const REST_OF_DATES = 'Only this could be read as a question about dates; what else the request says of them was left out.'
const when = z.string().min(1).max(MAX_DATE)
const count = z.int().min(-MAX_AMOUNT).max(MAX_AMOUNT).optional()
const amounts = Object.fromEntries(UNITS.map(unit => [unit, count])) as Record<Unit, typeof count>

export const datesTool = (dates: Dates) => defineTool({
  name: 'dates',
  description: 'Answers what is about dates: adds and subtracts durations, tells differences, weekdays, weeks, the time now and in other zones. Use it for every date and time of day.',
  input: z.strictObject({
    questions: z.array(z.strictObject({
      operation: z.enum(OPERATIONS).describe('add and subtract: date, amount. difference: date, to, unit. weekday, week (ISO): date. now: zone. convert: date with a time of day, zone, to_zone.'),
      date: when.optional().describe('ISO 8601 ("2026-03-01", "2026-03-01T15:00"), or in words: "1 March 2026", "next friday", "today", "3pm".'),
      to: when.optional().describe('The second date of a difference.'),
      amount: z.strictObject(amounts).optional(),
      unit: z.enum(UNITS).optional().describe('Of a difference; days.'),
      zone: when.optional().describe('The time zone of the dates: "Asia/Tokyo", "Tokyo", "UTC+2".'),
      to_zone: when.optional(),
    })).min(1).max(10),
    rest: z.boolean().optional().describe('True if the request asks more about dates than these; the answer then says so.'),
  }),
  recognize(request) {
    const { questions, rest } = readDateQuestions(request, dates.clock.now())
    return questions.length ? { questions, ...(rest && { rest }) } : undefined
  },
  async run({ questions, rest }) {
    const results: DateAnswer[] = questions.map(question => dates.answer(question))
    const words = results.map(({ text: answer, error }) => (error === undefined ? `${answer}.` : `This can't be answered: ${error}.`))
    return { results, text: [...words, ...(rest ? [REST_OF_DATES] : [])].join('\n') }
  },
})

export const mathAgent = defineAgent({
  name: 'math',
  summary: 'Computes: arithmetic, percentages, functions, units, equations, dates',
  tools: ['calculator', 'solver', 'dates'],
  instructions: [
    'You answer questions that can be computed. Compute with the tool "calculator", solve equations with "solver" and answer what is about dates and times',
    'of day with "dates"; never do it in your head. Give their results as they are, with what they say about them.',
    'If a question can\'t be answered with them, say so.',
  ].join('\n'),
})
