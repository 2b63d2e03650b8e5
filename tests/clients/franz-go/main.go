// franz-go and its admin client kadm. See ../README.md for what a driver does
// and prints.
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
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
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
	admin     *kadm.Client
	// What was acknowledged: per partition, the record expected at each offset.
	ledger [partitions][]*kgo.Record
	failed []string
}

func main() {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT")
	flag.Parse()
	suffix := make([]byte, 5)
	rand.Read(suffix)
	topic := "franz-go-" + hex.EncodeToString(suffix)
	client, err := kgo.NewClient(kgo.SeedBrokers(*bootstrap))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	r := &run{bootstrap: *bootstrap, topic: topic, group: topic + "-group", admin: kadm.NewClient(client)}
	if r.step("create topic", r.createTopic) {
		r.step("create topic again", r.createAgain)
		r.step("metadata", r.metadata)
		for _, codec := range []struct {
			name string
			kgo.CompressionCodec
		}{
			{"none", kgo.NoCompression()},
			{"gzip", kgo.GzipCompression()},
			{"snappy", kgo.SnappyCompression()},
			{"lz4", kgo.Lz4Compression()},
			{"zstd", kgo.ZstdCompression()},
		} {
			r.step("produce "+codec.name, func(c context.Context) error {
				return r.produce(c, codec.name, 0, records, kgo.ProducerBatchCompression(codec.CompressionCodec))
			})
		}
		r.step("produce without idempotence", func(c context.Context) error {
			return r.produce(c, "plain", 0, records, kgo.DisableIdempotentWrite())
		})
		r.step("produce acks=1", func(c context.Context) error {
			return r.produce(c, "one", 0, records, kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck()))
		})
		r.step("list offsets", r.listOffsets)
		r.step("consume all in a group", func(c context.Context) error { return r.consume(c, [partitions]int{}) })
		r.step("committed offsets", r.committed)
		r.step("resume from the commit", r.resume)
		r.step("rebalance", r.rebalance)
		r.step("list and describe groups", r.groups)
		r.step("lag", r.lag)
		r.step("commit, fetch and delete offsets by hand", r.offsetsByHand)
		r.step("configs", r.configs)
		r.step("log dirs", r.logDirs)
		r.step("offset for leader epoch", r.leaderEpoch)
		r.step("delete records", r.deleteRecords)
		r.step("create partitions", r.createPartitions)
		r.step("delete group", r.deleteGroup)
		r.step("delete topic", r.deleteTopic)
	}
	if len(r.failed) > 0 {
		fmt.Printf("franz-go: %d failed: %s\n", len(r.failed), strings.Join(r.failed, ", "))
		os.Exit(1)
	}
	fmt.Println("franz-go: all steps passed")
}

func (r *run) step(name string, action func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	started := time.Now()
	if err := action(ctx); err != nil {
		r.failed = append(r.failed, name)
		fmt.Printf("FAIL franz-go  %s: %v [%T]\n", name, err, err)
		return false
	}
	fmt.Printf("ok   franz-go  %s  (%d ms)\n", name, time.Since(started).Milliseconds())
	return true
}

func equal[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return nil
}

func record(codec string, partition, number int) *kgo.Record {
	tag := fmt.Sprintf("%s/%d/%d", codec, partition, number)
	m := &kgo.Record{
		Partition: int32(partition),
		Key:       []byte(tag),
		Value:     []byte(strings.Repeat(tag+" ", 1+number%50)),
		Headers: []kgo.RecordHeader{
			{Key: "n", Value: fmt.Append(nil, number)},
			{Key: "n", Value: []byte("again")},
			{Key: "empty", Value: []byte{}},
			{Key: "null"},
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

func same(got, want *kgo.Record) error {
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
	headers := slices.EqualFunc(got.Headers, want.Headers, func(a, b kgo.RecordHeader) bool {
		return a.Key == b.Key && sameBytes(a.Value, b.Value)
	})
	if !headers {
		return fmt.Errorf("%s: headers %v, want %v", at, got.Headers, want.Headers)
	}
	return nil
}

func (r *run) createTopic(ctx context.Context) error {
	_, err := r.admin.CreateTopic(ctx, partitions, 1, nil, r.topic)
	return err
}

func (r *run) createAgain(ctx context.Context) error {
	if _, err := r.admin.CreateTopic(ctx, partitions, 1, nil, r.topic); !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("got %v, want TopicAlreadyExists", err)
	}
	_, err := r.admin.CreateTopic(ctx, partitions, 1, nil, "not a/topic name")
	if !errors.Is(err, kerr.InvalidTopicException) {
		return fmt.Errorf("got %v, want InvalidTopicException", err)
	}
	return nil
}

func (r *run) metadata(ctx context.Context) error {
	all, err := r.admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	if !all.Has(r.topic) {
		return errors.New("topic not listed")
	}
	m, err := r.admin.Metadata(ctx, r.topic, r.topic+"-none")
	if err != nil {
		return err
	}
	if err := m.Topics[r.topic+"-none"].Err; !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("unknown topic: got %v", err)
	}
	brokers := m.Brokers.NodeIDs()
	if !slices.Contains(brokers, m.Controller) {
		return fmt.Errorf("controller %d is no broker", m.Controller)
	}
	detail := m.Topics[r.topic]
	if detail.ID == (kadm.TopicID{}) {
		return errors.New("topic id is zero")
	}
	for _, p := range detail.Partitions.Sorted() {
		if !slices.Contains(brokers, p.Leader) {
			return fmt.Errorf("leader %d is no broker", p.Leader)
		}
	}
	return equal("partitions", len(detail.Partitions), partitions)
}

func (r *run) produce(ctx context.Context, name string, first, count int, options ...kgo.Opt) error {
	client, err := kgo.NewClient(append(options,
		kgo.SeedBrokers(r.bootstrap),
		kgo.DefaultProduceTopic(r.topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(20*time.Millisecond),
	)...)
	if err != nil {
		return err
	}
	defer client.Close()
	var sent []*kgo.Record
	for i := range count {
		for p := range partitions {
			sent = append(sent, record(name, p, first+i))
		}
	}
	for _, result := range client.ProduceSync(ctx, sent...) {
		if result.Err != nil {
			return result.Err
		}
	}
	for _, m := range sent {
		if err := equal("acknowledged offset", m.Offset, int64(len(r.ledger[m.Partition]))); err != nil {
			return fmt.Errorf("partition %d: %w", m.Partition, err)
		}
		r.ledger[m.Partition] = append(r.ledger[m.Partition], m)
	}
	return nil
}

func (r *run) listOffsets(ctx context.Context) error {
	first, err1 := r.admin.ListStartOffsets(ctx, r.topic)
	last, err2 := r.admin.ListEndOffsets(ctx, r.topic)
	committed, err3 := r.admin.ListCommittedOffsets(ctx, r.topic)
	after, err4 := r.admin.ListOffsetsAfterMilli(ctx, firstTimestamp+4500, r.topic)
	newest, err5 := r.admin.ListMaxTimestampOffsets(ctx, r.topic)
	future, err6 := r.admin.ListOffsetsAfterMilli(ctx, firstTimestamp+int64(time.Hour), r.topic)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return err
	}
	for p := range int32(partitions) {
		end := int64(len(r.ledger[p]))
		err := errors.Join(
			equal("start", first[r.topic][p].Offset, 0),
			equal("end", last[r.topic][p].Offset, end),
			equal("committed end", committed[r.topic][p].Offset, end),
			equal("after a time", after[r.topic][p].Offset, 5),
			equal("time found", after[r.topic][p].Timestamp, firstTimestamp+5000),
			equal("max timestamp", newest[r.topic][p].Timestamp, firstTimestamp+(records-1)*1000),
			// kadm answers with the end when no record is as new.
			equal("after every time", future[r.topic][p].Offset, end),
			first[r.topic][p].Err, last[r.topic][p].Err, after[r.topic][p].Err, newest[r.topic][p].Err,
		)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
	}
	return nil
}

func (r *run) member(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(options,
		kgo.SeedBrokers(r.bootstrap),
		kgo.ConsumeTopics(r.topic),
		kgo.ConsumerGroup(r.group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(200*time.Millisecond),
		kgo.DisableAutoCommit(),
	)...)
}

// consume reads as a group from `start` to the end, and commits.
func (r *run) consume(ctx context.Context, start [partitions]int) error {
	client, err := r.member()
	if err != nil {
		return err
	}
	defer client.Close()
	next := start
	missing := 0
	for p := range partitions {
		missing += len(r.ledger[p]) - start[p]
	}
	for missing > 0 {
		fetched := client.PollFetches(ctx)
		if err := fetched.Err0(); err != nil {
			return fmt.Errorf("%d records missing: %w", missing, err)
		}
		for _, failure := range fetched.Errors() {
			return failure.Err
		}
		for m := range fetched.RecordsAll() {
			if err := equal("next offset", m.Offset, int64(next[m.Partition])); err != nil {
				return fmt.Errorf("partition %d: %w", m.Partition, err)
			}
			if err := same(m, r.ledger[m.Partition][m.Offset]); err != nil {
				return err
			}
			next[m.Partition]++
			missing--
		}
	}
	return client.CommitUncommittedOffsets(ctx)
}

func (r *run) committed(ctx context.Context) error {
	offsets, err := r.admin.FetchOffsets(ctx, r.group)
	if err != nil {
		return err
	}
	for p := range int32(partitions) {
		o, ok := offsets.Lookup(r.topic, p)
		if !ok || o.Err != nil {
			return fmt.Errorf("partition %d: found %v, error %v", p, ok, o.Err)
		}
		if err := equal("offset", o.At, int64(len(r.ledger[p]))); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) resume(ctx context.Context) error {
	var start [partitions]int
	for p := range partitions {
		start[p] = len(r.ledger[p])
	}
	if err := r.produce(ctx, "more", 1000, 10); err != nil {
		return err
	}
	return r.consume(ctx, start)
}

// rebalance: two members share the partitions; when one leaves the other has all.
func (r *run) rebalance(ctx context.Context) error {
	type assignment struct {
		member     int
		partitions int
	}
	var clients [2]*kgo.Client
	for i := range clients {
		client, err := r.member(kgo.InstanceID(fmt.Sprintf("static-%d", i)), kgo.Balancers(kgo.RangeBalancer()))
		if err != nil {
			return err
		}
		defer client.Close()
		clients[i] = client
	}
	settled := func(want ...int) error {
		for {
			var sizes []int
			for _, client := range clients[:len(want)] {
				pollCtx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
				client.PollFetches(pollCtx)
				cancel()
			}
			d, err := r.admin.DescribeGroups(ctx, r.group)
			if err != nil {
				return err
			}
			group := d[r.group]
			for _, m := range group.Members {
				if assigned, ok := m.Assigned.AsConsumer(); ok {
					n := 0
					for _, t := range assigned.Topics {
						n += len(t.Partitions)
					}
					sizes = append(sizes, n)
				}
			}
			slices.Sort(sizes)
			if group.State == "Stable" && slices.Equal(sizes, want) {
				return nil
			}
			if ctx.Err() != nil {
				return fmt.Errorf("state %s, assignment sizes %v, want %v", group.State, sizes, want)
			}
		}
	}
	if err := settled(1, 2); err != nil {
		return err
	}
	// A static member does not leave by closing; the admin removes it.
	clients[1].Close()
	left, err := r.admin.LeaveGroup(ctx, kadm.LeaveGroup(r.group).InstanceIDs("static-1"))
	if err != nil {
		return err
	}
	if err := left.Error(); err != nil {
		return err
	}
	if err := settled(partitions); err != nil {
		return err
	}
	clients[0].Close()
	left, err = r.admin.LeaveGroup(ctx, kadm.LeaveGroup(r.group).InstanceIDs("static-0"))
	return errors.Join(err, left.Error())
}

func (r *run) groups(ctx context.Context) error {
	listed, err := r.admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(listed.Groups(), r.group) {
		return errors.New("group not listed")
	}
	empty, err := r.admin.ListGroups(ctx, "Stable")
	if err != nil {
		return err
	}
	if slices.Contains(empty.Groups(), r.group) {
		return errors.New("an empty group is listed among the stable ones")
	}
	described, err := r.admin.DescribeGroups(ctx, r.group)
	if err != nil {
		return err
	}
	group := described[r.group]
	return errors.Join(group.Err, equal("state", group.State, "Empty"), equal("members", len(group.Members), 0))
}

func (r *run) lag(ctx context.Context) error {
	lags, err := r.admin.Lag(ctx, r.group)
	if err != nil {
		return err
	}
	lag := lags[r.group]
	return errors.Join(lag.Error(), equal("lag", lag.Lag.Total(), 0))
}

func (r *run) offsetsByHand(ctx context.Context) error {
	var moved kadm.Offsets
	moved.Add(kadm.Offset{Topic: r.topic, Partition: 2, At: 7, LeaderEpoch: -1, Metadata: "moved"})
	if err := r.admin.CommitAllOffsets(ctx, r.group, moved); err != nil {
		return err
	}
	fetched, err := r.admin.FetchOffsets(ctx, r.group)
	if err != nil {
		return err
	}
	at, _ := fetched.Lookup(r.topic, 2)
	if err := errors.Join(equal("offset", at.At, 7), equal("metadata", at.Metadata, "moved")); err != nil {
		return err
	}
	deleted, err := r.admin.DeleteOffsets(ctx, r.group, kadm.TopicsSet{r.topic: {2: {}}})
	if err != nil {
		return err
	}
	if err := deleted.Error(); err != nil {
		return err
	}
	fetched, err = r.admin.FetchOffsets(ctx, r.group)
	if err != nil {
		return err
	}
	if at, ok := fetched.Lookup(r.topic, 2); ok && at.At != -1 {
		return fmt.Errorf("offset %d still there after its deletion", at.At)
	}
	return nil
}

func (r *run) config(ctx context.Context, name string) (kadm.Config, error) {
	all, err := r.admin.DescribeTopicConfigs(ctx, r.topic)
	if err != nil {
		return kadm.Config{}, err
	}
	topic, err := all.On(r.topic, nil)
	if err != nil {
		return kadm.Config{}, err
	}
	for _, config := range topic.Configs {
		if config.Key == name && config.Value != nil {
			return config, topic.Err
		}
	}
	return kadm.Config{}, errors.Join(fmt.Errorf("%s not described", name), topic.Err)
}

func (r *run) configs(ctx context.Context) error {
	policy, err := r.config(ctx, "cleanup.policy")
	if err != nil {
		return err
	}
	if err := equal("cleanup.policy", *policy.Value, "delete"); err != nil {
		return err
	}
	value := "7200000"
	for _, change := range []struct {
		config kadm.AlterConfig
		source string
	}{
		{kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}, "DYNAMIC_TOPIC_CONFIG"},
		{kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "retention.ms"}, "DEFAULT_CONFIG"},
	} {
		altered, err := r.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{change.config}, r.topic)
		if err != nil {
			return err
		}
		if _, err := altered.On(r.topic, func(a *kadm.AlterConfigsResponse) error { return a.Err }); err != nil {
			return err
		}
		retention, err := r.config(ctx, "retention.ms")
		if err != nil {
			return err
		}
		if err := equal("source of retention.ms", retention.Source.String(), change.source); err != nil {
			return err
		}
	}
	bad := "never"
	altered, err := r.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &bad}}, r.topic)
	if err != nil {
		return err
	}
	if _, err := altered.On(r.topic, func(a *kadm.AlterConfigsResponse) error { return a.Err }); !errors.Is(err, kerr.InvalidConfig) {
		return fmt.Errorf("retention.ms=never: got %v, want InvalidConfig", err)
	}
	return nil
}

func (r *run) logDirs(ctx context.Context) error {
	all, err := r.admin.DescribeAllLogDirs(ctx, kadm.TopicsSet{r.topic: {0: {}, 1: {}, 2: {}}})
	if err != nil {
		return err
	}
	found := 0
	for _, broker := range all {
		if err := broker.Error(); err != nil {
			return err
		}
		for _, directory := range broker {
			for _, p := range directory.Topics.Sorted() {
				if p.Topic == r.topic && p.Size > 0 {
					found++
				}
			}
		}
	}
	if found < partitions {
		return fmt.Errorf("sizes of %d partitions, want %d", found, partitions)
	}
	return nil
}

func (r *run) leaderEpoch(ctx context.Context) error {
	var asked kadm.OffsetForLeaderEpochRequest
	asked.Add(r.topic, 0, 0)
	answer, err := r.admin.OffsetForLeaderEpoch(ctx, asked)
	if err != nil {
		return err
	}
	got := answer[r.topic][0]
	return errors.Join(got.Err, equal("end offset of epoch 0", got.EndOffset, int64(len(r.ledger[0]))))
}

func (r *run) deleteRecords(ctx context.Context) error {
	var before kadm.Offsets
	before.AddOffset(r.topic, 0, 30, -1)
	deleted, err := r.admin.DeleteRecords(ctx, before)
	if err != nil {
		return err
	}
	if err := deleted.Error(); err != nil {
		return err
	}
	first, err := r.admin.ListStartOffsets(ctx, r.topic)
	if err != nil {
		return err
	}
	return errors.Join(
		equal("low watermark", deleted[r.topic][0].LowWatermark, 30),
		equal("start of 0", first[r.topic][0].Offset, 30),
		equal("start of 1", first[r.topic][1].Offset, 0),
	)
}

func (r *run) createPartitions(ctx context.Context) error {
	created, err := r.admin.UpdatePartitions(ctx, partitions+2, r.topic)
	if err != nil {
		return err
	}
	if err := created.Error(); err != nil {
		return err
	}
	fewer, err := r.admin.UpdatePartitions(ctx, 1, r.topic)
	if err == nil && !errors.Is(fewer.Error(), kerr.InvalidPartitions) {
		return fmt.Errorf("fewer partitions: got %v, want InvalidPartitions", fewer.Error())
	}
	topics, err := r.admin.ListTopics(ctx, r.topic)
	if err != nil {
		return err
	}
	return equal("partitions", len(topics[r.topic].Partitions), partitions+2)
}

func (r *run) deleteGroup(ctx context.Context) error {
	if _, err := r.admin.DeleteGroup(ctx, r.group); err != nil {
		return err
	}
	if _, err := r.admin.DeleteGroup(ctx, r.group); !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("deleted again: got %v, want GroupIDNotFound", err)
	}
	return nil
}

func (r *run) deleteTopic(ctx context.Context) error {
	if _, err := r.admin.DeleteTopic(ctx, r.topic); err != nil {
		return err
	}
	for {
		topics, err := r.admin.ListTopics(ctx)
		if err != nil {
			return err
		}
		if !topics.Has(r.topic) {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
}
