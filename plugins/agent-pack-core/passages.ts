/** A part of a document that can be found and quoted. */
export interface Passage {
  /** First and last line, counted from 1. */
  readonly from: number
  readonly to: number
  /** The headings that it stands under, outermost first. */
  readonly heading: string
  readonly text: string
}

/** Characters from which on the next paragraph begins a passage of its own. */
const ENOUGH = 700
/** Of a passage, whatever the document is like. */
const MOST = 2_000
const HEADING = /^(#{1,6})[ \t]+(.*?)[ \t#]*$/
const FENCE = /^ {0,3}(`{3,}|~{3,})/

/** Cuts a text into passages: by headings if it is Markdown, then by paragraphs; what stands between fences stays together as far as it fits. */
export function passagesOf(text: string, markdown: boolean): Passage[] {
  const passages: Passage[] = []
  const headings: string[] = []
  let lines: string[] = []
  let [from, size] = [1, 0]
  let fence: string | undefined
  const close = () => {
    const blank = lines.findIndex(line => line.trim())
    const kept = lines.join('\n').trimEnd().split('\n')
    const heading = headings.filter(Boolean).join(' › ')
    if (blank !== -1) passages.push({ from: from + blank, to: from + kept.length - 1, heading, text: kept.slice(blank).join('\n') })
    lines = []
    size = 0
  }
  const add = (line: string, number: number) => {
    if (size > 0 && size + line.length > MOST) close()
    if (!lines.length) from = number
    lines.push(line)
    size += line.length + 1
  }
  text.split(/\r?\n/).forEach((line, index) => {
    const mark = markdown ? FENCE.exec(line)?.[1] : undefined
    const heading = markdown && !fence ? HEADING.exec(line) : null
    if (mark && !fence) fence = mark
    else if (mark && fence && mark[0] === fence[0] && mark.length >= fence.length) fence = undefined
    if (heading) {
      close()
      headings.length = Math.min(headings.length, heading[1]!.length - 1)
      headings[heading[1]!.length - 1] = heading[2]!.slice(0, 200)
    } else if (!line.trim() && !fence && size > ENOUGH) close()
    else for (let at = 0; at === 0 || at < line.length; at += MOST) add(line.slice(at, at + MOST), index + 1)
  })
  close()
  return passages
}
