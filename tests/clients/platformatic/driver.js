// @platformatic/kafka. See ../README.md for what a driver does and prints.
import { randomBytes } from 'node:crypto'
import zlib from 'node:zlib'
import {
  Admin,
  ConfigResourceTypes,
  Consumer,
  IncrementalAlterConfigOperationTypes,
  ListOffsetTimestamps,
  Producer,
  stringDeserializers,
  stringSerializers,
} from '@platformatic/kafka'

const PARTITIONS = 3
const RECORDS = 40
// Not long ago: older records would fall to retention while the driver runs.
const FIRST_TIMESTAMP = (Math.floor(Date.now() / 1000) - 7200) * 1000
const WAIT_MS = 30000

// The library takes zstd from Node, which has it from version 22.15 on.
const CODECS = ['none', 'gzip', 'snappy', 'lz4', ...(zlib.zstdCompressSync ? ['zstd'] : [])]

const topic = `platformatic-${randomBytes(5).toString('hex')}`
const groupId = `${topic}-group`
const base = {
  clientId: 'driver',
  bootstrapBrokers: [process.argv[process.argv.indexOf('--bootstrap') + 1]],
}
const admin = new Admin(base)
const failed = []

async function step(name, action, { essential = false } = {}) {
  const started = Date.now()
  try {
    const note = await action()
    console.log(`ok   platformatic  ${name}${note ? ': ' + note : ''}  (${Date.now() - started} ms)`)
  } catch (error) {
    failed.push(name)
    const causes = (error.errors ?? []).map(e => e.message).join('; ')
    console.log(`FAIL platformatic  ${name}: ${error.message}${causes && ': ' + causes} [${error.name}]`)
    if (essential) await finish()
  }
}

async function finish() {
  await admin.close()
  console.log(
    failed.length ? `platformatic: ${failed.length} failed: ${failed.join(', ')}` : 'platformatic: all steps passed'
  )
  process.exit(failed.length ? 1 : 0)
}

function check(condition, message) {
  if (!condition) throw new Error(message)
}

function equal(what, got, want) {
  const [a, b] = [got, want].map(v => JSON.stringify(v, (_, x) => (typeof x === 'bigint' ? String(x) : x)) ?? 'nothing')
  check(a === b, `${what}: got ${a.slice(0, 400)}, want ${b.slice(0, 400)}`)
}

// What was acknowledged: for each partition the content expected at each offset.
const ledger = Array.from({ length: PARTITIONS }, () => [])

const ends = () => ledger.map(log => BigInt(log.length))

function content(message) {
  const headers = message.headers instanceof Map ? [...message.headers] : Object.entries(message.headers ?? {})
  return [message.key ?? null, message.value ?? null, headers, message.timestamp]
}

function record(codec, partition, number) {
  const tag = `${codec}/${partition}/${number}`
  const kinds = {
    7: { value: undefined },
    8: { key: undefined },
    9: { value: '', headers: {} },
  }
  return {
    topic,
    partition,
    key: tag,
    value: `${tag} `.repeat(1 + (number % 50)),
    headers: { n: String(number), empty: '' },
    timestamp: BigInt(FIRST_TIMESTAMP + number * 1000),
    ...kinds[number % 10],
  }
}

async function produce(codec, { first = 0, count = RECORDS, acks = -1, idempotent = false } = {}) {
  const producer = new Producer({ ...base, serializers: stringSerializers, idempotent })
  try {
    const messages = []
    for (let i = 0; i < count; i++) {
      for (let p = 0; p < PARTITIONS; p++) messages.push(record(codec, p, first + i))
    }
    const { offsets } = await producer.send({ messages, acks, compression: codec })
    equal('partitions answered', offsets.length, PARTITIONS)
    for (const { partition, offset } of offsets) {
      equal(`base offset of ${partition}`, offset, ends()[partition])
      ledger[partition].push(...messages.filter(m => m.partition === partition).map(content))
    }
  } finally {
    await producer.close()
  }
}

// Consumes as a member of the group until every record from `start` on came,
// compares them with the ledger, commits, and leaves.
async function consume(start) {
  const expected = ledger.reduce((sum, log, p) => sum + log.length - start[p], 0)
  const consumer = new Consumer({ ...base, groupId, deserializers: stringDeserializers, maxWaitTime: 200 })
  try {
    const stream = await consumer.consume({
      topics: [topic],
      mode: 'committed',
      fallbackMode: 'earliest',
      autocommit: false,
    })
    const received = ledger.map(() => new Map())
    let count = 0
    let duplicate = null
    await new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`${count} of ${expected} records in ${WAIT_MS} ms`)), WAIT_MS).unref()
      stream.on('error', reject)
      stream.on('data', message => {
        const { partition, offset } = message
        if (received[partition].has(offset)) duplicate = `${partition}/${offset}`
        received[partition].set(offset, content(message))
        // A little longer, for what should not come.
        if (++count === expected) setTimeout(resolve, 300)
      })
    })
    check(!duplicate, `${duplicate} delivered twice`)
    for (let p = 0; p < PARTITIONS; p++) {
      equal(`records of partition ${p}`, received[p].size, ledger[p].length - start[p])
      for (let offset = start[p]; offset < ledger[p].length; offset++) {
        equal(`partition ${p} offset ${offset}`, received[p].get(BigInt(offset)), ledger[p][offset])
      }
    }
    await consumer.commit({
      offsets: ends().map((offset, partition) => ({ topic, partition, offset, leaderEpoch: 0 })),
    })
    return `${count} records`
  } finally {
    await consumer.close(true)
  }
}

async function offsets(timestamp) {
  const partitions = ledger.map((_, partitionIndex) => ({ partitionIndex, timestamp }))
  const [found] = await admin.listOffsets({ topics: [{ name: topic, partitions }] })
  return byPartition(found.partitions, 'offset')
}

async function committed() {
  const [group] = await admin.listConsumerGroupOffsets({ groups: [groupId] })
  const found = group.topics.find(t => t.name === topic)
  return byPartition(found?.partitions ?? [], 'committedOffset')
}

const byPartition = (rows, field) =>
  [...rows].sort((a, b) => a.partitionIndex - b.partitionIndex).map(row => row[field])

const metadata = () => admin.metadata({ topics: [topic], forceUpdate: true })

async function config(name) {
  const [described] = await admin.describeConfigs({
    resources: [{ resourceType: ConfigResourceTypes.TOPIC, resourceName: topic }],
  })
  return described.configs.find(entry => entry.name === name)?.value
}

async function main() {
  await step(
    'create topic',
    async () => {
      const [created] = await admin.createTopics({ topics: [topic], partitions: PARTITIONS, replicas: 1 })
      equal('partitions', created.partitions, PARTITIONS)
    },
    { essential: true }
  )
  await step('create topic again', async () => {
    const refusal = await admin.createTopics({ topics: [topic], partitions: PARTITIONS, replicas: 1 }).then(
      () => null,
      error => error
    )
    check(refusal?.findBy?.('apiId', 'TOPIC_ALREADY_EXISTS'), `got ${refusal}, want TOPIC_ALREADY_EXISTS`)
  })
  await step('metadata', async () => {
    check((await admin.listTopics()).includes(topic), 'topic not listed')
    const { brokers, controllerId, topics } = await metadata()
    check(brokers.has(controllerId), `controller ${controllerId} is no broker`)
    const { partitions } = topics.get(topic)
    equal('partitions', partitions.length, PARTITIONS)
    for (const p of partitions) check(brokers.has(p.leader), `leader ${p.leader} is no broker`)
  })
  for (const codec of CODECS) {
    await step(`produce ${codec}`, () => produce(codec))
  }
  await step('produce idempotent', () => produce('gzip', { idempotent: true }))
  await step('produce acks=1', () => produce('none', { acks: 1 }))
  await step('list offsets', async () => {
    equal('latest', await offsets(ListOffsetTimestamps.LATEST), ends())
    equal('earliest', await offsets(ListOffsetTimestamps.EARLIEST), ledger.map(() => 0n))
    equal('by timestamp', await offsets(BigInt(FIRST_TIMESTAMP + 4500)), ledger.map(() => 5n))
  })
  await step('consume all in a group', () => consume(ledger.map(() => 0)))
  await step('committed offsets', async () => equal('offsets', await committed(), ends()))
  await step('resume from the commit', async () => {
    const start = ledger.map(log => log.length)
    await produce('none', { first: 1000, count: 10 })
    const note = await consume(start)
    equal('offsets', await committed(), ends())
    return note
  })
  await step('list and describe groups', async () => {
    check((await admin.listGroups()).has(groupId), 'group not listed')
    const group = (await admin.describeGroups({ groups: [groupId] })).get(groupId)
    equal('state', group.state.toUpperCase(), 'EMPTY')
    equal('members', group.members.size, 0)
  })
  await step('set group offsets', async () => {
    await admin.alterConsumerGroupOffsets({
      groupId,
      topics: [{ name: topic, partitionOffsets: [{ partition: 1, offset: 7n }] }],
    })
    equal('offset', (await committed())[1], 7n)
  })
  await step('configs', async () => {
    equal('cleanup.policy', await config('cleanup.policy'), 'delete')
    await admin.incrementalAlterConfigs({
      resources: [
        {
          resourceType: ConfigResourceTypes.TOPIC,
          resourceName: topic,
          configs: [
            { name: 'retention.ms', configOperation: IncrementalAlterConfigOperationTypes.SET, value: '7200000' },
          ],
        },
      ],
    })
    equal('retention.ms', await config('retention.ms'), '7200000')
  })
  await step('delete records', async () => {
    await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 30n }] }] })
    equal('earliest', await offsets(ListOffsetTimestamps.EARLIEST), [30n, 0n, 0n])
  })
  await step('create partitions', async () => {
    await admin.createPartitions({ topics: [{ name: topic, count: PARTITIONS + 2 }] })
    const { topics } = await metadata()
    equal('partitions', topics.get(topic).partitions.length, PARTITIONS + 2)
  })
  await step('delete group', async () => {
    await admin.deleteGroups({ groups: [groupId] })
    check(!(await admin.listGroups()).has(groupId), 'group still listed')
  })
  await step('delete topic', async () => {
    await admin.deleteTopics({ topics: [topic] })
    for (let i = 0; i < 50; i++) {
      if (!(await admin.listTopics()).includes(topic)) return
      await new Promise(resolve => setTimeout(resolve, 200))
    }
    throw new Error('topic still listed after 10 s')
  })
  await finish()
}

main()
