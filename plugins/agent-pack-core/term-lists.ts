/** Which words each passage holds, as numbers: looked through in a millisecond or two, where an index that scores takes a hundred. */
export class TermLists {
  readonly #numbers = new Map<string, number>()
  readonly #terms: string[] = []
  /** By number: passages that hold it. */
  readonly #counts: number[] = []
  readonly #free: number[] = []
  readonly #lists = new Map<number, Uint32Array>()

  add(passage: number, terms: ReadonlySet<string>): void {
    this.#lists.set(passage, Uint32Array.from(terms, term => this.#number(term)))
  }

  remove(passage: number): void {
    for (const number of this.#lists.get(passage) ?? []) {
      if (--this.#counts[number]! > 0) continue
      this.#numbers.delete(this.#terms[number]!)
      this.#free.push(number)
    }
    this.#lists.delete(passage)
  }

  /** Passages that hold it. */
  count(term: string): number {
    const number = this.#numbers.get(term)
    return number === undefined ? 0 : this.#counts[number]!
  }

  /** Is there a passage that holds more than half of them? */
  holdsMost(terms: ReadonlySet<string>): boolean {
    const wanted = new Uint8Array(this.#terms.length)
    for (const term of terms) {
      const number = this.#numbers.get(term)
      if (number !== undefined) wanted[number] = 1
    }
    for (const list of this.#lists.values()) {
      let held = 0
      for (let at = 0; at < list.length; at++) held += wanted[list[at]!]!
      if (held > terms.size / 2) return true
    }
    return false
  }

  #number(term: string): number {
    let number = this.#numbers.get(term)
    if (number === undefined) {
      this.#numbers.set(term, number = this.#free.pop() ?? this.#terms.length)
      this.#terms[number] = term
      this.#counts[number] = 0
    }
    this.#counts[number]!++
    return number
  }
}
