// What the suites written in JavaScript share: cases, waiting for conditions, child processes, the control channel.
//
// A suite registers async functions with `add`, gives its child roles with `role`, and ends with `main()`. Cases run a
// few at a time, each with topics and groups of its own; exclusive ones (that restart the broker, or measure time) run
// alone, after the others.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'

export const BOOTSTRAP = process.env.BOOTSTRAP
// "vltava" or "kafka": only for the few points where Apache Kafka itself is known to differ.
export const BROKER = process.env.BROKER ?? 'vltava'
// The least session timeout that brokers allow by default: what a member's death costs.
export const SESSION_MS = 6000

// How many ordinary cases run at a time.
const WIDTH = 4
// A case that takes longer has failed, and the suite ends there.
const CASE_TIMEOUT_MS = 90_000
// How long a condition is awaited unless the case says otherwise.
const WAIT_MS = 30_000

const cases = []
const roles = new Map()
let numbers = 0

export { assert, pause }

/** Registers a case under a name without blanks. */
export function add (name, run, { exclusive = false } = {}) {
  cases.push({ name, run, exclusive })
}

/** Registers what a child process started by `new Child(name, …)` does. */
export function role (name, run) {
  roles.set(name, run)
}

/** A name that no other case uses. */
export function unique (prefix) {
  numbers += 1
  return `${prefix}-${numbers}-${randomBytes(4).toString('hex')}`
}

/** A value of that size that tells its number, the same for the same number. */
export function payload (number, size = 100) {
  const unit = `${String(number).padStart(8, '0')}:${'abcdefgh'.slice(number % 8)}žluť\0`
  return Buffer.alloc(size, unit)
}

/** Asks until the answer is true, and returns it; fails the case when time is over. */
export async function until (condition, what, { timeoutMs = WAIT_MS, everyMs = 50 } = {}) {
  const deadline = Date.now() + timeoutMs
  for (;;) {
    const answer = await condition()
    if (answer) {
      return answer
    }
    assert(Date.now() < deadline, `${what}: not within ${timeoutMs} ms`)
    await pause(everyMs)
  }
}

/** The promise's value, or a failure when it takes longer. */
export async function within (promise, what, timeoutMs = WAIT_MS) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${timeoutMs} ms`)), timeoutMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Ends the broker by the signal and resolves once it accepts again, on the same data and port. */
export async function restart (signal) {
  const answer = await fetch(`${process.env.CONTROL}/restart?signal=${signal}`, { method: 'POST' })
  assert.equal(answer.status, 200, await answer.text())
}

/** Another process of the same suite in one of its roles: what can be killed as a whole. */
export class Child {
  #process
  #lines = []
  #wake = () => {}
  #ended = false

  constructor (name, ...words) {
    this.#process = spawn(process.execPath, ['--no-warnings', process.argv[1], name, ...words], {
      stdio: ['ignore', 'pipe', 'inherit']
    })
    createInterface({ input: this.#process.stdout }).on('line', line => {
      this.#lines.push(line)
      this.#wake()
    })
    this.#process.on('exit', () => {
      this.#ended = true
      this.#wake()
    })
  }

  /** The first line from now on that is accepted. */
  async waitLine (accept, what, timeoutMs = WAIT_MS) {
    const deadline = Date.now() + timeoutMs
    const seen = []
    for (;;) {
      while (this.#lines.length > 0) {
        const line = this.#lines.shift()
        if (accept(line)) {
          return line
        }
        seen.push(line)
      }
      const left = deadline - Date.now()
      const last = `last lines ${JSON.stringify(seen.slice(-5))}`
      assert(!this.#ended, `${what}: the child ended; ${last}`)
      assert(left > 0, `${what}: not within ${timeoutMs} ms; ${last}`)
      await Promise.race([new Promise(resolve => { this.#wake = resolve }), pause(left)])
    }
  }

  /** Waits until the child owns that many partitions; returns them. */
  async owns (count, what) {
    const line = await this.waitLine(l => l.startsWith('assigned ') && numbersOf(l).length === count, what)
    return numbersOf(line)
  }

  /** kill -9. */
  async kill () {
    if (!this.#ended) {
      this.#process.kill('SIGKILL')
      await until(() => this.#ended, 'the end of a killed child')
    }
  }

  /** Asks the child to leave by SIGTERM and waits for its end. */
  async end () {
    this.#process.kill('SIGTERM')
    await until(() => this.#ended, 'the end of a child after SIGTERM')
  }
}

/** Runs the body with children that are killed when it is over. */
export async function withChildren (body) {
  const children = []
  try {
    await body((...words) => {
      const child = new Child(...words)
      children.push(child)
      return child
    })
  } finally {
    await Promise.all(children.map(child => child.kill()))
  }
}

/** The line by which a member child tells what it owns. */
export function tellAssigned (partitions) {
  console.log(`assigned ${[...partitions].sort((a, b) => a - b).join(',')}`)
}

function numbersOf (line) {
  return line.slice('assigned '.length).split(',').filter(word => word !== '').map(Number)
}

async function runCase ({ name, run }) {
  try {
    await within(run(), 'the case', CASE_TIMEOUT_MS)
    console.log(`ok ${name}`)
  } catch (error) {
    console.log(error)
    console.log(`not ok ${name}: ${String(error?.message ?? error).replace(/\s+/g, ' ').slice(0, 400)}`)
  }
}

/** Runs the role named on the command line, or else all cases (`CASES=a,b` picks some). */
export async function main () {
  const [name, ...words] = process.argv.slice(2)
  if (name !== undefined) {
    await roles.get(name)(...words)
    process.exit(0)
  }
  const picked = (process.env.CASES ?? '').split(',').filter(word => word !== '')
  const wanted = cases.filter(({ name }) => picked.length === 0 || picked.includes(name))
  const waiting = wanted.filter(({ exclusive }) => !exclusive)
  await Promise.all(Array.from({ length: WIDTH }, async () => {
    while (waiting.length > 0) {
      await runCase(waiting.shift())
    }
  }))
  for (const entry of wanted.filter(({ exclusive }) => exclusive)) {
    await runCase(entry)
  }
  console.log(`end ${wanted.length}`)
  process.exit(0)
}
