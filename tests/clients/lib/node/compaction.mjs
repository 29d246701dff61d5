// What compaction leaves of a log, and that no consumer stalls in the gaps: the case, for any client.
//
// A client gives these verbs:
//
//   create(prefix, configs)          a new topic of one partition
//   send(topic, pairs, codec)        produces [key, value] pairs in one batch; resolves to the first offset, a number
//   withLasting(body)                runs the body with a like function of one idempotent producer: (topic, pairs)
//   withReader(topic, place, body)   runs the body with a list that grows by { offset, key, value }, text and numbers,
//                                    as a consumer reads: in place.groupId, from its commits, or else the beginning
//   commit(groupId, topic, offset)   commits for a group that has no members

import { assert, pause, unique, until } from './harness.mjs'

// Small segments that are compacted at once. Tombstones may go soon after.
export const CONFIGS = {
  'cleanup.policy': 'compact',
  'segment.bytes': '1048576',
  'segment.ms': '10',
  'min.cleanable.dirty.ratio': '0.01',
  'max.compaction.lag.ms': '100',
  'delete.retention.ms': '100'
}

// Beyond segment.ms.
const ROLL_MS = 20
// How long it takes at most until something comes that is there.
const SHORT_MS = 300

const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd']
const KEYS = ['key-0', 'key-1', 'key-2', 'key-3', 'key-4']
// The last batch ends with tombstones for these.
const DELETED = KEYS.slice(3)
const LAST = ['last', 'the record that ends the log']

/** A value that tells where it comes from and is worth compressing. */
const pair = (key, round) => [key, `${key} of ${round} ${'abcdefghij'.repeat(20)}`]

/** A codec's batch: a key of its own, so that it is cut down and built again in its codec, and the shared keys. */
function batch (codec) {
  const deletes = codec === CODECS.at(-1)
  const shared = KEYS.map(key => deletes && DELETED.includes(key) ? [key, null] : pair(key, codec))
  return [pair(`own-${codec}`, codec), ...shared]
}

const settled = records => new Set(records.map(record => record.key)).size === records.length
const isLive = record => record.value !== null

/** Fails the case unless these, in order, have the last values of what was written. A tombstone may be gone. */
function judge (records, written) {
  const offsets = records.map(record => record.offset)
  assert.deepEqual(offsets, [...new Set(offsets)].sort((a, b) => a - b), 'offsets ascend')
  const found = Object.fromEntries(records.map(({ key, value }) => [key, value]))
  const wanted = Object.fromEntries(written)
  assert.deepEqual({ ...Object.fromEntries(DELETED.map(key => [key, null])), ...found }, wanted)
}

/** Reads from the beginning, or a group's commit, until the record at that offset. */
function readUntil (client, topic, last, place = {}) {
  return client.withReader(topic, place, async records => {
    await until(() => records.at(-1)?.offset >= last, `the record ${last} of ${topic}`)
    return [...records]
  })
}

/** The case. */
export async function compactedTopic (client) {
  const topic = await client.create('compacted', CONFIGS)
  // Of the idempotent producer's first batch an empty one stays, since it is the last of a producer that may go on.
  await client.withLasting(async send => {
    const written = KEYS.map(key => pair(key, 'first'))
    await send(topic, written)
    for (const codec of CODECS) {
      await client.send(topic, batch(codec), codec)
      written.push(...batch(codec))
    }
    const begun = Date.now()
    await until(() => Date.now() > begun + ROLL_MS, 'the clock to move', { everyMs: ROLL_MS })
    const last = written.length
    assert.equal(await client.send(topic, [LAST], 'none'), last, 'offset of the last record')
    written.push(LAST)

    let left
    await until(async () => {
      left = await readUntil(client, topic, last)
      return settled(left)
    }, 'compaction')
    assert(left.length < written.length, `${left.length} of ${written.length} records are left`)
    judge(left, written)
    await resumeInGap(client, topic, left)

    // The producer goes on; then nothing is left at the end of the log but, at most, a tombstone.
    for (const [n, change] of [['key-0', 'afterwards'], [LAST[0], null]].entries()) {
      assert.equal(await send(topic, [change]), last + 1 + n, 'offset after compaction')
      written.push(change)
    }
    await readOverTheEnd(client, topic, send, written)
  })
}

/** A group begins where it committed, and there is nothing any more. */
async function resumeInGap (client, topic, left) {
  assert(left[0].offset > 2, `a gap at the beginning, not ${left[0].offset}`)
  const groupId = unique('compacted')
  await client.commit(groupId, topic, 2)
  const rest = await readUntil(client, topic, left.at(-1).offset, { groupId })
  // Tombstones may go between two reads.
  assert.deepEqual(rest.filter(isLive), left.filter(isLive), 'records after the gap')
}

/** Reads a log whose last record is a tombstone, or has been one, and then a record that comes later. */
async function readOverTheEnd (client, topic, send, written) {
  const end = written.length
  await client.withReader(topic, {}, async records => {
    await until(() => records.at(-1)?.offset >= end - 2, 'the record before the end')
    // Until it waits at the end, whatever that looks like.
    await pause(SHORT_MS)
    const later = ['later', 'later']
    assert.equal(await send(topic, [later]), end, 'offset of a later record')
    await until(() => records.at(-1)?.offset === end, 'a record that came later')
    judge([{ offset: -1, key: LAST[0], value: null }, ...records], [...written, later])
  })
}
