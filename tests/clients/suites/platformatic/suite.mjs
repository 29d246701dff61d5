// @platformatic/kafka: the modern Node.js client, which speaks only newer, flexible versions and follows topic ids.

import {
  Admin, CompressionAlgorithms, ConfigResourceTypes, Consumer, IncrementalAlterConfigOperationTypes, ListOffsetTimestamps,
  MessagesStreamFallbackModes, MessagesStreamModes, ProduceAcks, Producer, sleep
} from '@platformatic/kafka'
import { CONFIGS, compactedTopic } from './compaction.mjs'
import {
  BOOTSTRAP, BROKER, SESSION_MS, add, assert, main, payload, restart, role, tellAssigned, unique, until, within, withChildren
} from './harness.mjs'

const common = { clientId: 'vltava-suite', bootstrapBrokers: [BOOTSTRAP], retries: 300, retryDelay: 100, strict: true }

async function withClient (client, body) {
  try {
    return await body(client)
  } finally {
    // A consumer with an open stream closes by force only; an admin client knows no force.
    await (client instanceof Admin ? client.close() : client.close(true))
  }
}

const withAdmin = body => withClient(new Admin(common), body)
const withProducer = (options, body) => withClient(new Producer({ ...common, ...options }), body)

function newConsumer (groupId, options = {}) {
  return new Consumer({
    ...common, groupId, sessionTimeout: SESSION_MS, rebalanceTimeout: SESSION_MS, heartbeatInterval: 500,
    maxWaitTime: 200, ...options
  })
}

const withConsumer = (groupId, options, body) => withClient(newConsumer(groupId, options), body)

/** A new topic whose every partition has a leader. */
async function create (prefix, partitions = 1, configs = {}) {
  const topic = unique(prefix)
  await withAdmin(async admin => {
    await admin.createTopics({
      topics: [topic], partitions, replicas: 1, configs: Object.entries(configs).map(([name, value]) => ({ name, value }))
    })
    await leaders(admin, topic, partitions)
  })
  return topic
}

async function leaders (admin, topic, count) {
  await until(async () => {
    try {
      const { topics } = await admin.metadata({ topics: [topic], forceUpdate: true, retries: 0 })
      return topics.get(topic).partitions.filter(p => p?.leader >= 0).length === count
    } catch (error) {
      // Apache Kafka may not know a topic yet that it has just acknowledged. Vltava must.
      if (BROKER === 'kafka' && (error.message.startsWith('Unknown topic') || isUnknownTopic(error))) {
        return false
      }
      throw error
    }
  }, `leaders of ${topic}`)
}

/** Produces the values in one request; returns its result. */
function send (topic, values, { partition = 0, ...options } = {}) {
  return withProducer(options, producer => sendWith(producer, topic, values, partition))
}

function sendWith (producer, topic, values, partition = 0) {
  const messages = values.map(value => ({
    topic, partition, ...(Buffer.isBuffer(value) ? { value } : typeof value === 'string' ? { value: Buffer.from(value) } : value)
  }))
  return producer.send({ messages })
}

/** The next `count` messages of a stream. */
async function take (stream, count) {
  const messages = []
  await within((async () => {
    for await (const message of stream) {
      messages.push(message)
      if (messages.length >= count) {
        return
      }
    }
  })(), `${count} messages`)
  return messages
}

/** Reads `count` messages of a topic in a group of its own, from the beginning or from an offset of partition 0. */
function read (topic, count, { offset, groupId = unique('read') } = {}) {
  return withConsumer(groupId, {}, async consumer => {
    const place = offset === undefined
      ? { mode: MessagesStreamModes.COMMITTED, fallbackMode: MessagesStreamFallbackModes.EARLIEST }
      : { mode: MessagesStreamModes.MANUAL, offsets: [{ topic, partition: 0, offset: BigInt(offset) }] }
    return take(await consumer.consume({ topics: [topic], autocommit: false, ...place }), count)
  })
}

const valuesOf = messages => messages.map(message => message.value)
const isUnknownTopic = error => apiIdIs('UNKNOWN_TOPIC_OR_PARTITION')(error)
const apiIdIs = id => error => Boolean(error.findBy?.('apiId', id)) || `${error.apiId}` === id

// ---------------------------------------------------------------- compaction: first, since it waits

const toMessages = pairs => pairs.map(([key, value]) => ({ key: Buffer.from(key), value: value === null ? null : Buffer.from(value) }))

/** Runs the body with a list that grows as a consumer reads a topic, one batch a fetch, so that empty ones come alone. */
function withReader (topic, { groupId = unique('read') }, body) {
  return withConsumer(groupId, {}, async consumer => {
    const records = []
    const stream = await consumer.consume({
      topics: [topic], mode: MessagesStreamModes.COMMITTED, fallbackMode: MessagesStreamFallbackModes.EARLIEST, autocommit: false,
      maxBytes: 1
    })
    stream.on('data', ({ offset, key, value }) => {
      records.push({ offset: Number(offset), key: String(key), value: value ? String(value) : null })
    })
    return body(records)
  })
}

add('compacted-topic', () => {
  const firstOffset = async (producer, topic, pairs) =>
    Number((await sendWith(producer, topic, toMessages(pairs))).offsets[0].offset)
  return compactedTopic({
    create: (prefix, configs) => create(prefix, 1, configs),
    send: (topic, pairs, compression) => withProducer({ compression }, producer => firstOffset(producer, topic, pairs)),
    withLasting: body => withProducer({ idempotent: true, acks: ProduceAcks.ALL }, producer =>
      body((topic, pairs) => firstOffset(producer, topic, pairs))),
    withReader,
    commit: (groupId, topic, offset) => withAdmin(admin => admin.alterConsumerGroupOffsets({
      groupId, topics: [{ name: topic, partitionOffsets: [{ partition: 0, offset: BigInt(offset) }] }]
    }))
  })
})

add('no-key-for-a-compacted-topic', async () => {
  const topic = await create('keyless', 1, CONFIGS)
  await assert.rejects(send(topic, ['no key']), apiIdIs('INVALID_RECORD'))
  await send(topic, toMessages([['key', 'value']]))
  assert.deepEqual(valuesOf(await read(topic, 1)).map(String), ['value'])
})

// ---------------------------------------------------------------- topics and configs

add('create-list-describe-topic', async () => {
  const topic = await create('topics', 3, { 'retention.ms': '123456' })
  await withAdmin(async admin => {
    assert((await admin.listTopics()).includes(topic), 'the topic is listed')
    const metadata = await admin.metadata({ topics: [topic] })
    assert.equal(metadata.topics.get(topic).partitionsCount, 3)
    assert.deepEqual([...metadata.brokers.values()].map(b => `${b.host}:${b.port}`), [BOOTSTRAP])
    const twice = admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 })
    await assert.rejects(twice, apiIdIs('TOPIC_ALREADY_EXISTS'))
    const created = await admin.createTopics({ topics: [unique('told')], partitions: 2, replicas: 1 })
    assert.deepEqual([created[0].partitions, created[0].replicas], [2, 1])
  })
})

add('describe-and-alter-configs', async () => {
  const topic = await create('configs', 1, { 'retention.ms': '100000' })
  await withAdmin(async admin => {
    const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: topic }
    const value = async name => {
      const [described] = await admin.describeConfigs({ resources: [resource], includeSynonyms: true })
      return described.configs.find(config => config.name === name).value
    }
    assert.equal(await value('retention.ms'), '100000')
    const { SET, APPEND, DELETE } = IncrementalAlterConfigOperationTypes
    await admin.incrementalAlterConfigs({
      resources: [{
        ...resource,
        configs: [
          { name: 'segment.ms', configOperation: SET, value: '777777' },
          { name: 'cleanup.policy', configOperation: APPEND, value: 'compact' },
          { name: 'retention.ms', configOperation: DELETE }
        ]
      }]
    })
    await until(async () => await value('segment.ms') === '777777', 'the altered config')
    assert.deepEqual((await value('cleanup.policy')).split(',').sort(), ['compact', 'delete'])
    assert.equal(await value('retention.ms'), '604800000')
    await admin.alterConfigs({ resources: [{ ...resource, configs: [{ name: 'retention.bytes', value: '4096' }] }] })
    await until(async () => await value('retention.bytes') === '4096', 'AlterConfigs')
    assert.notEqual(await value('segment.ms'), '777777', 'AlterConfigs replaces everything')
  })
})

add('create-partitions', async () => {
  const topic = await create('grow')
  await withAdmin(async admin => {
    await admin.createPartitions({ topics: [{ name: topic, count: 4 }] })
    await leaders(admin, topic, 4)
    const fewer = admin.createPartitions({ topics: [{ name: topic, count: 2 }] })
    await assert.rejects(fewer, apiIdIs('INVALID_PARTITIONS'))
  })
  await send(topic, ['in the last'], { partition: 3 })
  const [message] = await read(topic, 1)
  assert.deepEqual([message.partition, String(message.value)], [3, 'in the last'])
})

add('delete-records', async () => {
  const topic = await create('trim')
  await send(topic, Array.from({ length: 100 }, (_, n) => payload(n)))
  await withAdmin(async admin => {
    const [deleted] = await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 40n }] }] })
    assert.equal(deleted.partitions[0].lowWatermark, 40n)
  })
  const [first] = await read(topic, 60)
  assert.deepEqual([first.offset, first.value], [40n, payload(40)])
})

add('delete-and-recreate-topic', async () => {
  const topic = await create('gone')
  await send(topic, ['old'])
  await withAdmin(async admin => {
    await admin.deleteTopics({ topics: [topic] })
    await until(async () => !(await admin.listTopics()).includes(topic), 'the topic is gone')
    await assert.rejects(admin.deleteTopics({ topics: [topic] }), apiIdIs('UNKNOWN_TOPIC_OR_PARTITION'))
    await admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 })
    await leaders(admin, topic, 1)
  })
  const { offsets } = await send(topic, ['new'])
  assert.equal(offsets[0].offset, 0n)
  assert.deepEqual(valuesOf(await read(topic, 1)).map(String), ['new'])
})

add('list-offsets', async () => {
  const topic = await create('offsets')
  const base = 1_700_000_000_000n
  for (let n = 0n; n < 10n; n++) {
    await send(topic, [{ value: payload(Number(n)), timestamp: base + n * 1000n }])
  }
  await withAdmin(async admin => {
    const { EARLIEST, LATEST, MAX } = ListOffsetTimestamps
    for (const [timestamp, wanted] of [[EARLIEST, 0n], [LATEST, 10n], [MAX, 9n], [base + 4500n, 5n], [base * 2n, -1n]]) {
      const [found] = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp }] }] })
      assert.equal(found.partitions[0].offset, wanted, `offset for ${timestamp}`)
    }
  })
})

// ---------------------------------------------------------------- produce and consume

for (const codec of Object.values(CompressionAlgorithms)) {
  for (const [name, acks] of [['0', ProduceAcks.NO_RESPONSE], ['1', ProduceAcks.LEADER], ['all', ProduceAcks.ALL]]) {
    add(`produce-${codec}-acks-${name}`, async () => {
      const topic = await create(`codec-${codec}`)
      const values = Array.from({ length: 200 }, (_, n) => payload(n, 300))
      await withProducer({ compression: codec, acks }, async producer => {
        await sendWith(producer, topic, values)
        // Closing a connection right after an unanswered request may lose it: read before the producer closes.
        const messages = await read(topic, 200)
        assert.deepEqual(valuesOf(messages), values)
        assert.deepEqual(messages.map(m => m.offset), values.map((_, n) => BigInt(n)))
      })
    })
  }
}

add('produce-idempotent', async () => {
  const topic = await create('idempotent')
  const values = Array.from({ length: 300 }, (_, n) => payload(n))
  await withProducer({ idempotent: true, acks: ProduceAcks.ALL }, async producer => {
    for (let n = 0; n < 300; n += 10) {
      await sendWith(producer, topic, values.slice(n, n + 10))
    }
  })
  assert.deepEqual(valuesOf(await read(topic, 300)), values)
})

add('round-trip', async () => {
  const topic = await create('round-trip')
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n))
  const headers = entries => new Map(entries.map(([k, v]) => [Buffer.from(k), Buffer.from(v)]))
  const sent = [
    { key: Buffer.from('key'), value: Buffer.from('value'), headers: headers([['a', '1'], ['empty', '']]), timestamp: 1_700_000_000_123n },
    { key: undefined, value: Buffer.from('no key'), headers: headers([]), timestamp: 1_700_000_000_124n },
    { key: Buffer.from('null value'), value: null, headers: headers([]), timestamp: 1_700_000_000_125n },
    { key: Buffer.alloc(0), value: Buffer.alloc(0), headers: headers([['ключ', 'Влтава']]), timestamp: 1_700_000_000_126n },
    { key: bytes, value: Buffer.from(bytes).reverse(), headers: headers([]), timestamp: 1_700_000_000_127n }
  ]
  await send(topic, sent)
  const plain = ({ key, value, headers, timestamp }) => ({
    key: key ?? null, value: value ?? null, headers: [...headers].map(([k, v]) => [String(k), String(v)]), timestamp
  })
  assert.deepEqual((await read(topic, sent.length)).map(plain), sent.map(plain))
})

add('large-record', async () => {
  const topic = await create('large')
  const values = [1, 2, 3].map(n => payload(n, 950_000))
  for (const value of values) {
    await send(topic, [value])
  }
  assert.deepEqual(valuesOf(await read(topic, 3)), values)
})

add('too-large-record', async () => {
  const topic = await create('too-large', 1, { 'max.message.bytes': '50000' })
  await assert.rejects(send(topic, [payload(1, 60_000)]), apiIdIs('MESSAGE_TOO_LARGE'))
  await send(topic, ['small'])
  assert.deepEqual(valuesOf(await read(topic, 1)).map(String), ['small'])
})

add('auto-create', async () => {
  const topic = unique('auto')
  await send(topic, ['first'], { autocreateTopics: true })
  assert.deepEqual(valuesOf(await read(topic, 1)).map(String), ['first'])
})

add('consume-from-offset', async () => {
  const topic = await create('from-offset')
  const values = Array.from({ length: 500 }, (_, n) => payload(n))
  await send(topic, values, { compression: CompressionAlgorithms.LZ4 })
  for (const offset of [1, 137, 499]) {
    const messages = await read(topic, 500 - offset, { offset })
    assert.equal(messages[0].offset, BigInt(offset))
    assert.deepEqual(valuesOf(messages), values.slice(offset))
  }
})

add('consume-by-timestamp', async () => {
  const topic = await create('by-time')
  const base = 1_700_000_000_000n
  const messages = Array.from({ length: 100 }, (_, n) => ({ value: payload(n), timestamp: base + BigInt(n) * 10n }))
  await send(topic, messages, { compression: CompressionAlgorithms.ZSTD })
  await withConsumer(unique('by-time'), {}, async consumer => {
    for (const [timestamp, wanted] of [[base, 0n], [base + 505n, 51n], [base + 990n, 99n], [base + 991n, -1n]]) {
      const found = await consumer.listOffsets({ topics: [topic], timestamp })
      assert.deepEqual(found.get(topic), [wanted], `offset for +${timestamp - base}`)
    }
  })
  const [message] = await read(topic, 1, { offset: 51 })
  assert.equal(message.timestamp, base + 510n)
})

add('offset-reset-latest', async () => {
  const topic = await create('reset-latest')
  await send(topic, ['before'])
  await withConsumer(unique('latest'), {}, async consumer => {
    const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.LATEST, autocommit: false })
    const [[message]] = await Promise.all([take(stream, 1), send(topic, ['after'])])
    assert.equal(String(message.value), 'after')
  })
})

add('offset-reset-fail', async () => {
  const topic = await create('reset-fail')
  await withConsumer(unique('fail'), {}, async consumer => {
    const place = { mode: MessagesStreamModes.COMMITTED, fallbackMode: MessagesStreamFallbackModes.FAIL }
    await assert.rejects(async () => take(await consumer.consume({ topics: [topic], ...place }), 1))
  })
})

add('concurrent-order', async () => {
  const topic = await create('concurrent', 4)
  const rounds = 40
  // Idempotent, since this client retries a whole request when one of its partitions was refused.
  const produce = who => withProducer({ idempotent: true, acks: ProduceAcks.ALL }, async producer => {
    for (let round = 0; round < rounds; round++) {
      const messages = Array.from({ length: 20 }, (_, n) => ({ value: Buffer.from(`${who}:${round * 20 + n}`), partition: n % 4 }))
      await sendWith(producer, topic, messages)
    }
  })
  const [messages] = await Promise.all([read(topic, 3 * rounds * 20), produce(0), produce(1), produce(2)])
  const last = new Map()
  for (const { partition, value } of messages) {
    const [who, n] = String(value).split(':').map(Number)
    const place = `${partition}/${who}`
    assert(n > (last.get(place) ?? -1), `producer ${who}, partition ${partition}: ${n} after ${last.get(place)}`)
    last.set(place, n)
  }
})

// ---------------------------------------------------------------- groups

role('member', async (groupId, topic, instance) => {
  const consumer = newConsumer(groupId, instance ? { groupInstanceId: instance } : {})
  const tell = () => tellAssigned((consumer.assignments ?? []).flatMap(a => a.topic === topic ? a.partitions : []))
  consumer.on('consumer:group:join', tell)
  const left = new Promise(resolve => process.on('SIGTERM', resolve))
  const stream = await consumer.consume({
    topics: [topic], mode: MessagesStreamModes.COMMITTED, fallbackMode: MessagesStreamFallbackModes.EARLIEST, autocommit: false
  })
  stream.on('data', message => console.log(`got ${message.partition} ${message.offset}`))
  stream.on('error', error => console.log(`error ${error.message}`))
  await left
  await consumer.close(true)
})

add('group-of-one', async () => {
  const topic = await create('one', 3)
  const groupId = unique('one')
  for (const partition of [0, 1, 2]) {
    await send(topic, [`p${partition}`], { partition })
  }
  await withConsumer(groupId, {}, async consumer => {
    const stream = await consumer.consume({
      topics: [topic], mode: MessagesStreamModes.COMMITTED, fallbackMode: MessagesStreamFallbackModes.EARLIEST, autocommit: false
    })
    const messages = []
    stream.on('data', message => messages.push(message))
    await until(() => messages.length === 3, 'three messages')
    await Promise.all(messages.map(message => message.commit()))
    assert.deepEqual(valuesOf(messages).map(String).sort(), ['p0', 'p1', 'p2'])
  })
  await send(topic, ['later'], { partition: 1 })
  assert.deepEqual(valuesOf(await read(topic, 1, { groupId })).map(String), ['later'])
})

add('group-join-and-leave', () => withChildren(async start => {
  const topic = await create('join', 4)
  const group = unique('join')
  const first = start('member', group, topic)
  await first.owns(4, 'the only member owns all')
  const second = start('member', group, topic)
  const half = await second.owns(2, "the second member's half")
  const other = await first.owns(2, "the first member's half")
  assert.deepEqual([...half, ...other].sort(), [0, 1, 2, 3])
  await second.end()
  await first.owns(4, 'all again after the second left')
}))

add('group-member-dies', () => withChildren(async start => {
  const topic = await create('die', 4)
  const group = unique('die')
  const first = start('member', group, topic)
  const second = start('member', group, topic)
  await first.owns(2, "the first member's half")
  await second.owns(2, "the second member's half")
  await second.kill()
  await first.owns(4, 'the rest takes over')
  await send(topic, ['x'], { partition: 3 })
  await first.waitLine(line => line === 'got 3 0', 'a record of a partition taken over')
}))

add('group-static-member-returns', () => withChildren(async start => {
  const topic = await create('static', 2)
  const group = unique('static')
  const first = start('member', group, topic, 'a')
  await first.owns(2, 'all')
  const second = start('member', group, topic, 'b')
  const [other] = await second.owns(1, 'the second half')
  const [mine] = await first.owns(1, 'the first half')
  assert.notEqual(mine, other)
  await second.kill()
  const returned = start('member', group, topic, 'b')
  assert.deepEqual(await returned.owns(1, 'its old partition'), [other])
  await send(topic, ['x'], { partition: mine })
  const line = await first.waitLine(l => l.startsWith('got') || l.startsWith('assigned'), 'the record')
  assert.equal(line, `got ${mine} 0`, 'what the untouched member saw')
}))

add('commits', async () => {
  const topic = await create('commits', 2)
  const groupId = unique('commits')
  await send(topic, Array.from({ length: 10 }, (_, n) => payload(n)))
  await withConsumer(groupId, {}, async consumer => {
    await consumer.joinGroup()
    await consumer.commit({ offsets: [{ topic, partition: 0, offset: 4n, leaderEpoch: -1 }] })
    const found = await consumer.listCommittedOffsets({ topics: [{ topic, partitions: [0, 1] }] })
    assert.deepEqual(found.get(topic), [4n, -1n])
    await consumer.leaveGroup()
  })
  assert.deepEqual(valuesOf(await read(topic, 1, { groupId })), [payload(4)])
})

add('admin-groups', async () => {
  const topic = await create('admin-groups', 2)
  const groupId = unique('admin-groups')
  await withAdmin(admin => withChildren(async start => {
    const member = start('member', groupId, topic)
    await member.owns(2, 'all')
    const described = (await admin.describeGroups({ groups: [groupId] })).get(groupId)
    assert.deepEqual([described.state, described.protocolType, described.members.size], ['Stable', 'consumer', 1])
    assert((await admin.listGroups({ states: ['Stable'] })).has(groupId), 'listed as stable')
    await assert.rejects(admin.deleteGroups({ groups: [groupId] }), apiIdIs('NON_EMPTY_GROUP'))
    await member.end()
    await until(async () => (await admin.describeGroups({ groups: [groupId] })).get(groupId).state === 'Empty', 'an empty group')
    await admin.alterConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionOffsets: [{ partition: 0, offset: 3n }] }] })
    const [{ topics: [listed] }] = await admin.listConsumerGroupOffsets({ groups: [groupId] })
    assert.deepEqual(listed.partitions.map(p => [p.partitionIndex, p.committedOffset]), [[0, 3n]])
    await admin.deleteConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionIndexes: [0] }] })
    await admin.alterConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionOffsets: [{ partition: 0, offset: 3n }] }] })
    await admin.deleteGroups({ groups: [groupId] })
    await assert.rejects(admin.deleteGroups({ groups: [groupId] }), apiIdIs('GROUP_ID_NOT_FOUND'))
  }))
})

// ---------------------------------------------------------------- alone: restarts and times

add('long-poll-latency', async () => {
  const topic = await create('latency')
  await send(topic, ['warm'])
  await withConsumer(unique('latency'), { maxWaitTime: 5000 }, async consumer => {
    const stream = await consumer.consume({
      topics: [topic], mode: MessagesStreamModes.EARLIEST, autocommit: false, maxWaitTime: 5000
    })
    let arrive = () => {}
    const warm = new Promise(resolve => { arrive = resolve })
    stream.on('data', () => arrive())
    await within(warm, 'the first record')
    const times = []
    await withProducer({}, async producer => {
      for (let n = 0; n < 20; n++) {
        const arrived = new Promise(resolve => { arrive = resolve })
        const start = Date.now()
        await sendWith(producer, topic, ['x'])
        await within(arrived, 'the record')
        times.push(Date.now() - start)
      }
    })
    const median = times.sort((a, b) => a - b)[10]
    assert(median < 250, `a waiting fetch is answered late: median ${median} ms`)
  })
}, { exclusive: true })

add('commits-survive-kill', async () => {
  const topic = await create('survive')
  const groupId = unique('survive')
  const values = Array.from({ length: 100 }, (_, n) => payload(n))
  await send(topic, values)
  await withAdmin(admin => admin.alterConsumerGroupOffsets({
    groupId, topics: [{ name: topic, partitionOffsets: [{ partition: 0, offset: 60n }] }]
  }))
  await restart('KILL')
  assert.deepEqual(valuesOf(await read(topic, 40, { groupId })), values.slice(60))
}, { exclusive: true })

add('idempotent-produce-over-kill', async () => {
  const topic = await create('in-flight')
  const values = Array.from({ length: 1000 }, (_, n) => payload(n))
  let sent = 0
  let restarted = false
  await withProducer({ idempotent: true, acks: ProduceAcks.ALL }, async producer => {
    const produce = async () => {
      for (; sent < values.length; sent += 10) {
        await sendWith(producer, topic, values.slice(sent, sent + 10))
        if (sent > 500 && !restarted) {
          await sleep(2)
        }
      }
    }
    const cut = async () => {
      await until(() => sent > 400, 'the first answers', { everyMs: 2 })
      await restart('KILL')
      restarted = true
    }
    await Promise.all([produce(), cut()])
  })
  assert.deepEqual(valuesOf(await read(topic, values.length)), values, 'each once and in order')
}, { exclusive: true })

add('group-lives-over-clean-restart', () => withChildren(async start => {
  const topic = await create('restart', 2)
  const first = start('member', unique('restart'), topic)
  await first.owns(2, 'all')
  await send(topic, ['before'])
  await first.waitLine(line => line === 'got 0 0', 'the record before')
  await restart('TERM')
  await send(topic, ['after'])
  await first.waitLine(line => line === 'got 0 1', 'the record after')
}), { exclusive: true })

await main()
