// kafka-go: the program that tutorials for Kafka-compatible brokers show (dial
// the leader, write, read as a group), and the admin calls of its Client.
// See ../README.md for what a driver does and prints.
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
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	partitions = 3
	records    = 40
	wait       = 30 * time.Second
)

// Not long ago: older records would fall to retention while the driver runs.
var firstTimestamp = time.Now().Add(-2*time.Hour).Unix() * 1000

type run struct {
	bootstrap string
	topic     string
	group     string
	client    *kafka.Client
	// What was acknowledged: per partition, the record expected at each offset.
	ledger [partitions][]kafka.Message
	failed []string
}

func main() {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT")
	flag.Parse()
	suffix := make([]byte, 5)
	rand.Read(suffix)
	topic := "kafka-go-" + hex.EncodeToString(suffix)
	r := &run{
		bootstrap: *bootstrap,
		topic:     topic,
		group:     topic + "-group",
		client:    &kafka.Client{Addr: kafka.TCP(*bootstrap), Timeout: wait},
	}
	if r.step("create topic", r.createTopic) {
		r.step("create topic again", r.createAgain)
		r.step("dial leader, write, read back", r.dialLeader)
		r.step("metadata", r.metadata)
		r.step("produce none", func(c context.Context) error { return r.produce(c, "none", 0, 0, records) })
		for _, codec := range []kafka.Compression{kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
			r.step("produce "+codec.String(), func(c context.Context) error {
				return r.produce(c, codec.String(), codec, 0, records)
			})
		}
		r.step("list offsets", r.listOffsets)
		r.step("consume all in a group", func(c context.Context) error { return r.consume(c, [partitions]int{}) })
		r.step("committed offsets", r.committed)
		r.step("resume from the commit", r.resume)
		r.step("list and describe groups", r.groups)
		r.step("configs", r.configs)
		r.step("delete group", r.deleteGroup)
		r.step("delete topic", r.deleteTopic)
	}
	if len(r.failed) > 0 {
		fmt.Printf("kafka-go: %d failed: %s\n", len(r.failed), strings.Join(r.failed, ", "))
		os.Exit(1)
	}
	fmt.Println("kafka-go: all steps passed")
}

func (r *run) step(name string, action func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	started := time.Now()
	if err := action(ctx); err != nil {
		r.failed = append(r.failed, name)
		fmt.Printf("FAIL kafka-go  %s: %v [%T]\n", name, err, err)
		return false
	}
	fmt.Printf("ok   kafka-go  %s  (%d ms)\n", name, time.Since(started).Milliseconds())
	return true
}

func equal[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return nil
}

func record(codec string, partition, number int) kafka.Message {
	tag := fmt.Sprintf("%s/%d/%d", codec, partition, number)
	m := kafka.Message{
		Partition: partition,
		Key:       []byte(tag),
		Value:     []byte(strings.Repeat(tag+" ", 1+number%50)),
		Headers: []kafka.Header{
			{Key: "n", Value: []byte(fmt.Sprint(number))},
			{Key: "n", Value: []byte("again")},
			{Key: "empty", Value: []byte{}},
		},
		Time: time.UnixMilli(firstTimestamp + int64(number)*1000),
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

func same(got, want kafka.Message) error {
	at := fmt.Sprintf("partition %d offset %d", got.Partition, got.Offset)
	// Null and empty are not told apart: the group reader returns null for both.
	if !bytes.Equal(got.Key, want.Key) {
		return fmt.Errorf("%s: key %q, want %q", at, got.Key, want.Key)
	}
	if !bytes.Equal(got.Value, want.Value) {
		return fmt.Errorf("%s: value %q, want %q", at, got.Value, want.Value)
	}
	if !got.Time.Equal(want.Time) {
		return fmt.Errorf("%s: time %v, want %v", at, got.Time, want.Time)
	}
	if len(got.Headers) != len(want.Headers) {
		return fmt.Errorf("%s: %d headers, want %d", at, len(got.Headers), len(want.Headers))
	}
	for i, header := range got.Headers {
		if header.Key != want.Headers[i].Key || !bytes.Equal(header.Value, want.Headers[i].Value) {
			return fmt.Errorf("%s: header %d is %v, want %v", at, i, header, want.Headers[i])
		}
	}
	return nil
}

func (r *run) createTopic(ctx context.Context) error {
	// As in the tutorials: through a connection to the controller.
	conn, err := kafka.DialContext(ctx, "tcp", r.bootstrap)
	if err != nil {
		return err
	}
	defer conn.Close()
	controller, err := conn.Controller()
	if err != nil {
		return err
	}
	admin, err := kafka.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", controller.Host, controller.Port))
	if err != nil {
		return err
	}
	defer admin.Close()
	return admin.CreateTopics(kafka.TopicConfig{
		Topic: r.topic, NumPartitions: partitions, ReplicationFactor: 1,
	})
}

func (r *run) createAgain(ctx context.Context) error {
	answer, err := r.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: r.topic, NumPartitions: partitions, ReplicationFactor: 1}},
	})
	if err != nil {
		return err
	}
	if !errors.Is(answer.Errors[r.topic], kafka.TopicAlreadyExists) {
		return fmt.Errorf("got %v, want TopicAlreadyExists", answer.Errors[r.topic])
	}
	return nil
}

func (r *run) dialLeader(ctx context.Context) error {
	conn, err := kafka.DialLeader(ctx, "tcp", r.bootstrap, r.topic, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(wait))
	sent := []kafka.Message{record("dial", 0, 0), record("dial", 0, 1), record("dial", 0, 2)}
	if _, err := conn.WriteMessages(sent...); err != nil {
		return err
	}
	r.ledger[0] = append(r.ledger[0], sent...)
	first, last, err := conn.ReadOffsets()
	if err != nil {
		return err
	}
	if err := errors.Join(equal("first", first, 0), equal("last", last, 3)); err != nil {
		return err
	}
	if _, err := conn.Seek(0, kafka.SeekAbsolute); err != nil {
		return err
	}
	batch := conn.ReadBatch(1, 1<<20)
	for _, want := range sent {
		got, err := batch.ReadMessage()
		if err != nil {
			return err
		}
		if err := same(got, want); err != nil {
			return err
		}
	}
	return batch.Close()
}

func (r *run) metadata(ctx context.Context) error {
	answer, err := r.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{r.topic}})
	if err != nil {
		return err
	}
	if answer.Topics[0].Error != nil {
		return answer.Topics[0].Error
	}
	known := map[int]bool{}
	for _, broker := range answer.Brokers {
		known[broker.ID] = true
	}
	for _, p := range answer.Topics[0].Partitions {
		if !known[p.Leader.ID] {
			return fmt.Errorf("leader %d is no broker", p.Leader.ID)
		}
	}
	if !known[answer.Controller.ID] {
		return fmt.Errorf("controller %d is no broker", answer.Controller.ID)
	}
	return equal("partitions", len(answer.Topics[0].Partitions), partitions)
}

// chosen sends each record to the partition it names.
type chosen struct{}

func (chosen) Balance(m kafka.Message, _ ...int) int { return m.WriterData.(int) }

func (r *run) produce(ctx context.Context, name string, codec kafka.Compression, first, count int) error {
	writer := &kafka.Writer{
		Addr:         kafka.TCP(r.bootstrap),
		Topic:        r.topic,
		Balancer:     chosen{},
		RequiredAcks: kafka.RequireAll,
		Compression:  codec,
		BatchTimeout: 20 * time.Millisecond,
	}
	var sent []kafka.Message
	for i := range count {
		for p := range partitions {
			m := record(name, p, first+i)
			m.Partition = 0 // the writer refuses a record that names one itself
			m.WriterData = p
			sent = append(sent, m)
		}
	}
	if err := writer.WriteMessages(ctx, sent...); err != nil {
		return err
	}
	for _, m := range sent {
		p := m.WriterData.(int)
		r.ledger[p] = append(r.ledger[p], m)
	}
	return writer.Close()
}

func (r *run) listOffsets(ctx context.Context) error {
	var asked []kafka.OffsetRequest
	for p := range partitions {
		asked = append(asked, kafka.FirstOffsetOf(p), kafka.LastOffsetOf(p))
	}
	answer, err := r.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{r.topic: asked},
	})
	if err != nil {
		return err
	}
	for _, p := range answer.Topics[r.topic] {
		if p.Error != nil {
			return p.Error
		}
		err := errors.Join(
			equal("first offset", p.FirstOffset, 0),
			equal("last offset", p.LastOffset, int64(len(r.ledger[p.Partition]))),
		)
		if err != nil {
			return err
		}
	}
	return equal("partitions", len(answer.Topics[r.topic]), partitions)
}

// consume reads as a group from `start` to the end, and commits.
func (r *run) consume(ctx context.Context, start [partitions]int) error {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers:     []string{r.bootstrap},
		GroupID:     r.group,
		Topic:       r.topic,
		StartOffset: kafka.FirstOffset,
		MaxWait:     200 * time.Millisecond,
	})
	defer reader.Close()
	next := start
	missing := 0
	for p := range partitions {
		missing += len(r.ledger[p]) - start[p]
	}
	var last []kafka.Message
	for ; missing > 0; missing-- {
		m, err := reader.FetchMessage(ctx)
		if err != nil {
			return fmt.Errorf("%d records missing: %w", missing, err)
		}
		if err := equal("next offset", m.Offset, int64(next[m.Partition])); err != nil {
			return fmt.Errorf("partition %d: %w", m.Partition, err)
		}
		if err := same(m, r.ledger[m.Partition][m.Offset]); err != nil {
			return err
		}
		next[m.Partition]++
		last = append(last, m)
	}
	return reader.CommitMessages(ctx, last...)
}

func (r *run) committed(ctx context.Context) error {
	answer, err := r.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{
		GroupID: r.group,
		Topics:  map[string][]int{r.topic: {0, 1, 2}},
	})
	if err != nil {
		return err
	}
	if answer.Error != nil {
		return answer.Error
	}
	for _, p := range answer.Topics[r.topic] {
		if err := equal("committed", p.CommittedOffset, int64(len(r.ledger[p.Partition]))); err != nil {
			return err
		}
	}
	return equal("partitions", len(answer.Topics[r.topic]), partitions)
}

func (r *run) resume(ctx context.Context) error {
	var start [partitions]int
	for p := range partitions {
		start[p] = len(r.ledger[p])
	}
	if err := r.produce(ctx, "none", 0, 1000, 10); err != nil {
		return err
	}
	return r.consume(ctx, start)
}

func (r *run) groups(ctx context.Context) error {
	listed, err := r.client.ListGroups(ctx, &kafka.ListGroupsRequest{})
	if err != nil {
		return err
	}
	found := false
	for _, group := range listed.Groups {
		found = found || group.GroupID == r.group
	}
	if !found {
		return errors.New("group not listed")
	}
	described, err := r.client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{r.group}})
	if err != nil {
		return err
	}
	if described.Groups[0].Error != nil {
		return described.Groups[0].Error
	}
	return equal("state", described.Groups[0].GroupState, "Empty")
}

func (r *run) config(ctx context.Context, name string) (string, error) {
	answer, err := r.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: r.topic,
		}},
	})
	if err != nil {
		return "", err
	}
	if answer.Resources[0].Error != nil {
		return "", answer.Resources[0].Error
	}
	for _, entry := range answer.Resources[0].ConfigEntries {
		if entry.ConfigName == name {
			return entry.ConfigValue, nil
		}
	}
	return "", fmt.Errorf("%s not described", name)
}

func (r *run) configs(ctx context.Context) error {
	policy, err := r.config(ctx, "cleanup.policy")
	if err != nil {
		return err
	}
	altered, err := r.client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic,
			ResourceName: r.topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{
				Name: "retention.ms", Value: "7200000", ConfigOperation: kafka.ConfigOperationSet,
			}},
		}},
	})
	if err != nil {
		return err
	}
	if altered.Resources[0].Error != nil {
		return altered.Resources[0].Error
	}
	retention, err := r.config(ctx, "retention.ms")
	return errors.Join(err, equal("cleanup.policy", policy, "delete"), equal("retention.ms", retention, "7200000"))
}

func (r *run) deleteGroup(ctx context.Context) error {
	answer, err := r.client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{r.group}})
	if err != nil {
		return err
	}
	return answer.Errors[r.group]
}

func (r *run) deleteTopic(ctx context.Context) error {
	answer, err := r.client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{r.topic}})
	if err != nil {
		return err
	}
	return answer.Errors[r.topic]
}
