// kafkajs. See ../README.md for what a driver does and prints.
'use strict'

const { randomBytes } = require('node:crypto')
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs')
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const PARTITIONS = 3
const RECORDS = 40
// Not long ago: older records would fall to retention while the driver runs.
const FIRST_TIMESTAMP = (Math.floor(Date.now() / 1000) - 7200) * 1000
const WAIT_MS = 30000

const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
}

const bootstrap = process.argv[process.argv.indexOf('--bootstrap') + 1]
const topic = `kafkajs-${randomBytes(5).toString('hex')}`
const groupId = `${topic}-group`
const kafka = new Kafka({ clientId: 'driver', brokers: [bootstrap], logLevel: logLevel.NOTHING })
const admin = kafka.admin()
const failed = []

async function step(name, action, { essential = false } = {}) {
  const started = Date.now()
  try {
    const note = await action()
    console.log(`ok   kafkajs  ${name}${note ? ': ' + note : ''}  (${Date.now() - started} ms)`)
  } catch (error) {
    failed.push(name)
    console.log(`FAIL kafkajs  ${name}: ${error.message} [${error.name}]`)
    if (essential) await finish()
  }
}

async function finish() {
  await admin.disconnect()
  console.log(failed.length ? `kafkajs: ${failed.length} failed: ${failed.join(', ')}` : 'kafkajs: all steps passed')
  process.exit(failed.length ? 1 : 0)
}

function check(condition, message) {
  if (!condition) throw new Error(message)
}

function equal(what, got, want) {
  const [a, b] = [JSON.stringify(got), JSON.stringify(want)]
  check(a === b, `${what}: got ${a.slice(0, 400)}, want ${b.slice(0, 400)}`)
}

// What was acknowledged: for each partition the content expected at each offset.
const ledger = Array.from({ length: PARTITIONS }, () => [])

const ends = () => ledger.map(log => String(log.length))

function content(message) {
  const text = value => (value === null || value === undefined ? null : value.toString())
  const headers = {}
  for (const [name, value] of Object.entries(message.headers || {})) {
    headers[name] = [].concat(value).map(text)
  }
  return [text(message.key), text(message.value), headers, message.timestamp]
}

function record(codec, partition, number) {
  const tag = `${codec}/${partition}/${number}`
  const kinds = {
    7: { value: null },
    8: { key: null },
    9: { value: '', headers: {} },
  }
  return {
    partition,
    key: tag,
    value: `${tag} `.repeat(1 + (number % 50)),
    headers: { n: [String(number), 'again'], empty: '' },
    timestamp: String(FIRST_TIMESTAMP + number * 1000),
    ...kinds[number % 10],
  }
}

async function produce(codec, { first = 0, count = RECORDS, acks = -1, idempotent = false } = {}) {
  const producer = kafka.producer({ idempotent, ...(idempotent && { maxInFlightRequests: 1 }) })
  await producer.connect()
  const messages = []
  for (let i = 0; i < count; i++) {
    for (let p = 0; p < PARTITIONS; p++) messages.push(record(codec, p, first + i))
  }
  const answers = await producer.send({ topic, acks, compression: CODECS[codec], messages })
  await producer.disconnect()
  equal('partitions answered', answers.length, PARTITIONS)
  for (const { partition, baseOffset, errorCode } of answers) {
    equal(`error code of ${partition}`, errorCode, 0)
    equal(`base offset of ${partition}`, baseOffset, String(ledger[partition].length))
    ledger[partition].push(...messages.filter(m => m.partition === partition).map(content))
  }
}

// Consumes as a member of the group until `expected` records came, compares
// them with the ledger from `start` on, commits, and leaves.
async function consume(expected, start) {
  const consumer = kafka.consumer({ groupId })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const received = ledger.map(() => new Map())
  let count = 0
  let duplicate = null
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${count} of ${expected} records in ${WAIT_MS} ms`)), WAIT_MS).unref()
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error))
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        if (received[partition].has(message.offset)) duplicate = `${partition}/${message.offset}`
        received[partition].set(message.offset, content(message))
        if (++count === expected) setTimeout(resolve, 300)
      },
    })
  })
  check(!duplicate, `${duplicate} delivered twice`)
  for (let p = 0; p < PARTITIONS; p++) {
    equal(`records of partition ${p}`, received[p].size, ledger[p].length - start[p])
    for (let offset = start[p]; offset < ledger[p].length; offset++) {
      equal(`partition ${p} offset ${offset}`, received[p].get(String(offset)), ledger[p][offset])
    }
  }
  await consumer.commitOffsets(ends().map((offset, partition) => ({ topic, partition, offset })))
  await consumer.disconnect()
  return `${count} records`
}

const byPartition = (rows, field) =>
  [...rows].sort((a, b) => a.partition - b.partition).map(row => row[field])

async function main() {
  await step('connect', () => admin.connect(), { essential: true })
  await step(
    'create topic',
    async () => {
      const created = await admin.createTopics({
        topics: [{ topic, numPartitions: PARTITIONS, replicationFactor: 1 }],
      })
      equal('created', created, true)
    },
    { essential: true }
  )
  await step('create topic again', async () => {
    equal('created', await admin.createTopics({ topics: [{ topic, numPartitions: PARTITIONS }] }), false)
  })
  await step('metadata', async () => {
    check((await admin.listTopics()).includes(topic), 'topic not listed')
    const cluster = await admin.describeCluster()
    const brokers = cluster.brokers.map(b => b.nodeId)
    check(brokers.includes(cluster.controller), 'controller is no broker')
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    equal('partitions', topics[0].partitions.length, PARTITIONS)
    for (const p of topics[0].partitions) check(brokers.includes(p.leader), `leader ${p.leader} is no broker`)
  })
  for (const codec of Object.keys(CODECS)) {
    await step(`produce ${codec}`, () => produce(codec))
  }
  await step('produce idempotent', () => produce('gzip', { idempotent: true }))
  await step('produce acks=1', () => produce('none', { acks: 1 }))
  await step('list offsets', async () => {
    const offsets = await admin.fetchTopicOffsets(topic)
    equal('high', byPartition(offsets, 'high'), ends())
    equal('low', byPartition(offsets, 'low'), ledger.map(() => '0'))
    const found = await admin.fetchTopicOffsetsByTimestamp(topic, FIRST_TIMESTAMP + 4500)
    equal('by timestamp', byPartition(found, 'offset'), ledger.map(() => '5'))
  })
  await step('consume all in a group', () =>
    consume(
      ledger.reduce((sum, log) => sum + log.length, 0),
      ledger.map(() => 0)
    )
  )
  await step('committed offsets', async () => {
    const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] })
    equal('offsets', byPartition(committed.partitions, 'offset'), ends())
  })
  await step('resume from the commit', async () => {
    const start = ledger.map(log => log.length)
    await produce('none', { first: 1000, count: 10 })
    await consume(10 * PARTITIONS, start)
  })
  await step('list and describe groups', async () => {
    const { groups } = await admin.listGroups()
    check(groups.some(g => g.groupId === groupId), 'group not listed')
    const described = await admin.describeGroups([groupId])
    equal('state', described.groups[0].state, 'Empty')
    equal('members', described.groups[0].members.length, 0)
  })
  await step('set group offsets', async () => {
    await admin.setOffsets({ groupId, topic, partitions: [{ partition: 1, offset: '7' }] })
    const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] })
    equal('offset', byPartition(committed.partitions, 'offset')[1], '7')
  })
  await step('configs', async () => {
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic }]
    const read = async name => {
      const answer = await admin.describeConfigs({ resources, includeSynonyms: false })
      return answer.resources[0].configEntries.find(entry => entry.configName === name)?.configValue
    }
    equal('cleanup.policy', await read('cleanup.policy'), 'delete')
    await admin.alterConfigs({
      resources: [
        { type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.ms', value: '7200000' }] },
      ],
    })
    equal('retention.ms', await read('retention.ms'), '7200000')
  })
  await step('delete records', async () => {
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '30' }] })
    equal('low', byPartition(await admin.fetchTopicOffsets(topic), 'low'), ['30', '0', '0'])
  })
  await step('create partitions', async () => {
    await admin.createPartitions({ topicPartitions: [{ topic, count: PARTITIONS + 2 }] })
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    equal('partitions', topics[0].partitions.length, PARTITIONS + 2)
  })
  await step('delete group', async () => {
    await admin.deleteGroups([groupId])
    const { groups } = await admin.listGroups()
    check(!groups.some(g => g.groupId === groupId), 'group still listed')
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
