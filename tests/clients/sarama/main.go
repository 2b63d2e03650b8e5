// sarama: the synchronous producer, a consumer group and the ClusterAdmin, at the
// newest protocol version it knows. See ../README.md for what a driver does and
// prints.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

const (
	partitions = 3
	records    = 40
	wait       = 30 * time.Second
)

// Not long ago: older records would fall to retention while the driver runs.
var firstTimestamp = time.Now().Add(-2*time.Hour).Unix() * 1000

type run struct {
	bootstrap []string
	topic     string
	group     string
	admin     sarama.ClusterAdmin
	// What was acknowledged: per partition, the record expected at each offset.
	ledger [partitions][]*sarama.ConsumerMessage
	failed []string
}

func main() {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT")
	flag.Parse()
	suffix := make([]byte, 5)
	rand.Read(suffix)
	topic := "sarama-" + hex.EncodeToString(suffix)
	r := &run{bootstrap: []string{*bootstrap}, topic: topic, group: topic + "-group"}
	if r.step("connect", r.connect) && r.step("create topic", r.createTopic) {
		r.step("create topic again", r.createAgain)
		r.step("metadata", r.metadata)
		for _, codec := range []sarama.CompressionCodec{
			sarama.CompressionNone,
			sarama.CompressionGZIP,
			sarama.CompressionSnappy,
			sarama.CompressionLZ4,
			sarama.CompressionZSTD,
		} {
			r.step("produce "+codec.String(), func(context.Context) error {
				return r.produce(codec.String(), 0, records, func(c *sarama.Config) { c.Producer.Compression = codec })
			})
		}
		r.step("produce idempotent", func(context.Context) error {
			return r.produce("idempotent", 0, records, func(c *sarama.Config) {
				c.Producer.Idempotent = true
				c.Net.MaxOpenRequests = 1
			})
		})
		r.step("produce acks=1", func(context.Context) error {
			return r.produce("one", 0, records, func(c *sarama.Config) { c.Producer.RequiredAcks = sarama.WaitForLocal })
		})
		r.step("produce as version 1.0", func(context.Context) error {
			return r.produce("old", 0, records, func(c *sarama.Config) { c.Version = sarama.V1_0_0_0 })
		})
		r.step("list offsets", r.listOffsets)
		r.step("consume all in a group", func(c context.Context) error { return r.consume(c, [partitions]int{}) })
		r.step("committed offsets", r.committed)
		r.step("resume from the commit", r.resume)
		r.step("list and describe groups", r.groups)
		r.step("configs", r.configs)
		r.step("delete records", r.deleteRecords)
		r.step("create partitions", r.createPartitions)
		r.step("delete group", r.deleteGroup)
		r.step("delete topic", r.deleteTopic)
		r.admin.Close()
	}
	if len(r.failed) > 0 {
		fmt.Printf("sarama: %d failed: %s\n", len(r.failed), strings.Join(r.failed, ", "))
		os.Exit(1)
	}
	fmt.Println("sarama: all steps passed")
}

func (r *run) step(name string, action func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	started := time.Now()
	if err := action(ctx); err != nil {
		r.failed = append(r.failed, name)
		fmt.Printf("FAIL sarama  %s: %v [%T]\n", name, err, err)
		return false
	}
	fmt.Printf("ok   sarama  %s  (%d ms)\n", name, time.Since(started).Milliseconds())
	return true
}

func equal[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return nil
}

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	return c
}

func record(codec string, partition, number int) *sarama.ConsumerMessage {
	tag := fmt.Sprintf("%s/%d/%d", codec, partition, number)
	m := &sarama.ConsumerMessage{
		Partition: int32(partition),
		Key:       []byte(tag),
		Value:     []byte(strings.Repeat(tag+" ", 1+number%50)),
		Headers: []*sarama.RecordHeader{
			{Key: []byte("n"), Value: fmt.Append(nil, number)},
			{Key: []byte("n"), Value: []byte("again")},
			{Key: []byte("empty"), Value: []byte{}},
		},
		Timestamp: time.UnixMilli(firstTimestamp + int64(number)*1000),
	}
	switch number % 10 {
	case 7:
		m.Value = nil
	case 8:
		m.Key = nil
	case 9:
		m.Value = []byte{}
		m.Headers = nil
	}
	return m
}

func sameBytes(got, want []byte) bool {
	return bytes.Equal(got, want) && (got == nil) == (want == nil)
}

func same(got, want *sarama.ConsumerMessage) error {
	at := fmt.Sprintf("partition %d offset %d", got.Partition, got.Offset)
	if !sameBytes(got.Key, want.Key) {
		return fmt.Errorf("%s: key %q, want %q", at, got.Key, want.Key)
	}
	if !sameBytes(got.Value, want.Value) {
		return fmt.Errorf("%s: value %q, want %q", at, got.Value, want.Value)
	}
	if !got.Timestamp.Equal(want.Timestamp) {
		return fmt.Errorf("%s: time %v, want %v", at, got.Timestamp, want.Timestamp)
	}
	headers := slices.EqualFunc(got.Headers, want.Headers, func(a, b *sarama.RecordHeader) bool {
		return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
	})
	if !headers {
		return fmt.Errorf("%s: headers differ: got %d, want %d", at, len(got.Headers), len(want.Headers))
	}
	return nil
}

func (r *run) connect(context.Context) (err error) {
	r.admin, err = sarama.NewClusterAdmin(r.bootstrap, config())
	return err
}

func (r *run) createTopic(context.Context) error {
	return r.admin.CreateTopic(r.topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false)
}

func (r *run) createAgain(ctx context.Context) error {
	if err := r.createTopic(ctx); !errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return fmt.Errorf("got %v, want ErrTopicAlreadyExists", err)
	}
	return nil
}

func (r *run) metadata(context.Context) error {
	topics, err := r.admin.ListTopics()
	if err != nil {
		return err
	}
	if err := equal("partitions listed", topics[r.topic].NumPartitions, partitions); err != nil {
		return err
	}
	brokers, controller, err := r.admin.DescribeCluster()
	if err != nil {
		return err
	}
	known := map[int32]bool{}
	for _, broker := range brokers {
		known[broker.ID()] = true
	}
	if !known[controller] {
		return fmt.Errorf("controller %d is no broker", controller)
	}
	described, err := r.admin.DescribeTopics([]string{r.topic})
	if err != nil {
		return err
	}
	for _, p := range described[0].Partitions {
		if !known[p.Leader] {
			return fmt.Errorf("leader %d is no broker", p.Leader)
		}
	}
	return equal("partitions", len(described[0].Partitions), partitions)
}

func (r *run) produce(name string, first, count int, change func(*sarama.Config)) error {
	c := config()
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Return.Successes = true
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Flush.Frequency = 20 * time.Millisecond
	change(c)
	producer, err := sarama.NewSyncProducer(r.bootstrap, c)
	if err != nil {
		return err
	}
	defer producer.Close()
	var expected []*sarama.ConsumerMessage
	var sent []*sarama.ProducerMessage
	for i := range count {
		for p := range partitions {
			m := record(name, p, first+i)
			expected = append(expected, m)
			out := &sarama.ProducerMessage{Topic: r.topic, Partition: m.Partition, Timestamp: m.Timestamp}
			if m.Key != nil {
				out.Key = sarama.ByteEncoder(m.Key)
			}
			if m.Value != nil {
				out.Value = sarama.ByteEncoder(m.Value)
			}
			for _, header := range m.Headers {
				out.Headers = append(out.Headers, *header)
			}
			sent = append(sent, out)
		}
	}
	if err := producer.SendMessages(sent); err != nil {
		return err
	}
	for i, m := range expected {
		if err := equal("acknowledged offset", sent[i].Offset, int64(len(r.ledger[m.Partition]))); err != nil {
			return fmt.Errorf("partition %d: %w", m.Partition, err)
		}
		r.ledger[m.Partition] = append(r.ledger[m.Partition], m)
	}
	return nil
}

// offsets asks for one offset of each partition: the earliest, the latest, or
// the first at or after a time.
func (r *run) offsets(at int64) (map[int32]*sarama.OffsetResult, error) {
	asked := map[int32]int64{}
	for p := range int32(partitions) {
		asked[p] = at
	}
	answer, err := r.admin.ListOffsets(map[string]map[int32]int64{r.topic: asked}, nil)
	if err != nil {
		return nil, err
	}
	for p := range int32(partitions) {
		if answer[r.topic][p] == nil {
			return nil, fmt.Errorf("no offset of partition %d", p)
		}
		if answer[r.topic][p].Err != sarama.ErrNoError {
			return nil, answer[r.topic][p].Err
		}
	}
	return answer[r.topic], nil
}

func (r *run) listOffsets(context.Context) error {
	first, err1 := r.offsets(sarama.OffsetOldest)
	last, err2 := r.offsets(sarama.OffsetNewest)
	after, err3 := r.offsets(firstTimestamp + 4500)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	for p := range int32(partitions) {
		err := errors.Join(
			equal("first", first[p].Offset, 0),
			equal("last", last[p].Offset, int64(len(r.ledger[p]))),
			equal("after a time", after[p].Offset, 5),
		)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
	}
	return nil
}

// reading is one session in the group; its claims run side by side.
type reading struct {
	run     *run
	mu      sync.Mutex
	next    [partitions]int
	missing int
	err     error
	done    context.CancelFunc
}

func (*reading) Setup(sarama.ConsumerGroupSession) error { return nil }

func (*reading) Cleanup(s sarama.ConsumerGroupSession) error {
	s.Commit()
	return nil
}

func (c *reading) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case m, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			c.take(m)
			s.MarkMessage(m, "")
		case <-s.Context().Done():
			return nil
		}
	}
}

func (c *reading) take(m *sarama.ConsumerMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log := c.run.ledger[m.Partition]
	err := equal("next offset", m.Offset, int64(c.next[m.Partition]))
	if err == nil && m.Offset >= int64(len(log)) {
		err = errors.New("beyond the end")
	}
	if err == nil {
		err = same(m, log[m.Offset])
	}
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("partition %d: %w", m.Partition, err)
	}
	c.next[m.Partition]++
	c.missing--
	if c.err != nil || c.missing == 0 {
		c.done()
	}
}

// consume reads as a group from `start` to the end, and commits.
func (r *run) consume(ctx context.Context, start [partitions]int) error {
	c := config()
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.MaxWaitTime = 200 * time.Millisecond
	c.Consumer.Return.Errors = true
	group, err := sarama.NewConsumerGroup(r.bootstrap, r.group, c)
	if err != nil {
		return err
	}
	go func() {
		for err := range group.Errors() {
			fmt.Println("     sarama  the group reports:", err)
		}
	}()
	defer group.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reading := &reading{run: r, next: start, done: cancel}
	for p := range partitions {
		reading.missing += len(r.ledger[p]) - start[p]
	}
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{r.topic}, reading); err != nil {
			return err
		}
	}
	if reading.err != nil {
		return reading.err
	}
	return equal("records missing", reading.missing, 0)
}

func (r *run) committed(context.Context) error {
	answer, err := r.admin.ListConsumerGroupOffsets(r.group, map[string][]int32{r.topic: {0, 1, 2}})
	if err != nil {
		return err
	}
	if answer.Err != sarama.ErrNoError {
		return answer.Err
	}
	for p := range int32(partitions) {
		block := answer.GetBlock(r.topic, p)
		if block == nil {
			return fmt.Errorf("no answer for partition %d", p)
		}
		if err := equal("committed", block.Offset, int64(len(r.ledger[p]))); err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
	}
	return nil
}

func (r *run) resume(ctx context.Context) error {
	var start [partitions]int
	for p := range partitions {
		start[p] = len(r.ledger[p])
	}
	if err := r.produce("none", 1000, 10, func(*sarama.Config) {}); err != nil {
		return err
	}
	if err := r.consume(ctx, start); err != nil {
		return err
	}
	return r.committed(ctx)
}

func (r *run) groups(context.Context) error {
	listed, err := r.admin.ListConsumerGroups()
	if err != nil {
		return err
	}
	described, err := r.admin.DescribeConsumerGroups([]string{r.group})
	if err != nil {
		return err
	}
	if described[0].Err != sarama.ErrNoError {
		return described[0].Err
	}
	return errors.Join(
		equal("protocol type listed", listed[r.group], "consumer"),
		equal("state", described[0].State, "Empty"),
		equal("members", len(described[0].Members), 0),
	)
}

func (r *run) config(name string) (string, error) {
	entries, err := r.admin.DescribeConfig(sarama.ConfigResource{
		Type: sarama.TopicResource, Name: r.topic, ConfigNames: []string{name},
	})
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		if entry.Name == name {
			return entry.Value, nil
		}
	}
	return "", fmt.Errorf("%s not described", name)
}

func (r *run) configs(context.Context) error {
	policy, err1 := r.config("cleanup.policy")
	value := "7200000"
	err2 := r.admin.IncrementalAlterConfig(sarama.TopicResource, r.topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
	}, false)
	retention, err3 := r.config("retention.ms")
	return errors.Join(err1, err2, err3,
		equal("cleanup.policy", policy, "delete"), equal("retention.ms", retention, value))
}

func (r *run) deleteRecords(context.Context) error {
	if err := r.admin.DeleteRecords(r.topic, map[int32]int64{0: 30}); err != nil {
		return err
	}
	first, err := r.offsets(sarama.OffsetOldest)
	if err != nil {
		return err
	}
	return errors.Join(equal("first of 0", first[0].Offset, 30), equal("first of 1", first[1].Offset, 0))
}

func (r *run) createPartitions(context.Context) error {
	if err := r.admin.CreatePartitions(r.topic, partitions+2, nil, false); err != nil {
		return err
	}
	described, err := r.admin.DescribeTopics([]string{r.topic})
	if err != nil {
		return err
	}
	return equal("partitions", len(described[0].Partitions), partitions+2)
}

func (r *run) deleteGroup(context.Context) error {
	if err := r.admin.DeleteConsumerGroup(r.group); err != nil {
		return err
	}
	listed, err := r.admin.ListConsumerGroups()
	if err != nil {
		return err
	}
	if _, ok := listed[r.group]; ok {
		return errors.New("group still listed")
	}
	return nil
}

func (r *run) deleteTopic(ctx context.Context) error {
	if err := r.admin.DeleteTopic(r.topic); err != nil {
		return err
	}
	for ctx.Err() == nil {
		topics, err := r.admin.ListTopics()
		if err != nil {
			return err
		}
		if _, ok := topics[r.topic]; !ok {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	return errors.New("topic still listed")
}
