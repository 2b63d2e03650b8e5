// tree-consumer reads a topic of files (key: relative path, value: content) as a
// group of several members, writes the files, and reports what it saw as JSON.
//
// It stops at the end offsets found when it started. A record is known by its
// partition and offset, so a redelivery after a rebalance is told apart from a
// second record for the same path, which is a duplicate in the log.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

type report struct {
	Records     int             `json:"records"`
	Bytes       int64           `json:"bytes"`
	Redelivered int             `json:"redelivered"`
	Duplicates  []string        `json:"duplicates"`
	Problems    []string        `json:"problems"`
	Members     []int           `json:"members"`
	Ends        map[int32]int64 `json:"ends"`
	Seconds     float64         `json:"seconds"`
}

type collector struct {
	mu     sync.Mutex
	out    string
	start  map[int32]int64
	seen   map[int32][]bool
	paths  map[string]bool
	left   int
	done   chan struct{}
	report report
}

func main() {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT")
	topic := flag.String("topic", "", "the topic to read")
	group := flag.String("group", "", "the group to read as")
	out := flag.String("out", "", "directory to write the files to")
	members := flag.Int("members", 3, "consumers in the group")
	idle := flag.Duration("idle", 2*time.Minute, "give up after so long without a record")
	fetch := flag.Int("fetch-bytes", 32<<20, "largest answer to a fetch")
	flag.Parse()
	if err := run(*bootstrap, *topic, *group, *out, *members, int32(*fetch), *idle); err != nil {
		fmt.Fprintln(os.Stderr, "tree-consumer:", err)
		os.Exit(1)
	}
}

func run(bootstrap, topic, group, out string, members int, fetch int32, idle time.Duration) error {
	ctx := context.Background()
	plain, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		return err
	}
	defer plain.Close()
	admin := kadm.NewClient(plain)
	c := &collector{
		out:   out,
		start: map[int32]int64{},
		seen:  map[int32][]bool{},
		paths: map[string]bool{},
		done:  make(chan struct{}),
	}
	c.report.Ends = map[int32]int64{}
	c.report.Members = make([]int, members)
	c.report.Duplicates, c.report.Problems = []string{}, []string{}
	first, err := admin.ListStartOffsets(ctx, topic)
	if err == nil {
		err = first.Error()
	}
	if err != nil {
		return err
	}
	last, err := admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = last.Error()
	}
	if err != nil {
		return err
	}
	for partition, end := range last[topic] {
		c.start[partition] = first[topic][partition].Offset
		c.seen[partition] = make([]bool, end.Offset-c.start[partition])
		c.left += len(c.seen[partition])
		c.report.Ends[partition] = end.Offset
	}
	if c.left == 0 {
		close(c.done)
	}

	clients := make([]*kgo.Client, members)
	for i := range clients {
		clients[i], err = kgo.NewClient(
			kgo.SeedBrokers(bootstrap),
			kgo.ConsumerGroup(group),
			kgo.ConsumeTopics(topic),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			// Eager: the first stable generation with all members is the last.
			kgo.Balancers(kgo.RangeBalancer()),
			kgo.FetchMaxBytes(fetch),
			kgo.BrokerMaxReadBytes(4*fetch),
			kgo.FetchMaxPartitionBytes(4<<20),
			kgo.FetchMaxWait(500*time.Millisecond),
			kgo.AutoCommitMarks(),
		)
		if err != nil {
			return err
		}
		defer clients[i].Close()
	}
	if err := settled(ctx, admin, group, members); err != nil {
		return err
	}

	started := time.Now()
	reading, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	progress := make(chan struct{}, 1)
	for i, client := range clients {
		running.Go(func() {
			for reading.Err() == nil {
				fetched := client.PollFetches(reading)
				for _, failure := range fetched.Errors() {
					if reading.Err() == nil {
						fmt.Fprintf(os.Stderr, "member %d, partition %d: %v\n", i, failure.Partition, failure.Err)
					}
				}
				for record := range fetched.RecordsAll() {
					c.take(i, record)
					client.MarkCommitRecords(record)
				}
				if fetched.NumRecords() > 0 {
					select {
					case progress <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	var failure error
wait:
	for {
		select {
		case <-c.done:
			break wait
		case <-progress:
		case <-time.After(idle):
			failure = fmt.Errorf("no record for %s, %d missing", idle, c.missing())
			break wait
		}
	}
	c.report.Seconds = time.Since(started).Seconds()
	stop()
	running.Wait()
	for _, client := range clients {
		if err := client.CommitMarkedOffsets(ctx); err != nil && failure == nil {
			failure = fmt.Errorf("commit: %w", err)
		}
	}
	if failure != nil {
		c.report.Problems = append(c.report.Problems, failure.Error())
	}
	return json.NewEncoder(os.Stdout).Encode(c.report)
}

// settled waits until the group is stable with all its members, so that each
// gets partitions before the first record is taken.
func settled(ctx context.Context, admin *kadm.Client, group string, members int) error {
	state := "unknown"
	for range 300 {
		described, err := admin.DescribeGroups(ctx, group)
		if err == nil {
			state = described[group].State
			if state == "Stable" && len(described[group].Members) == members {
				return nil
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	return fmt.Errorf("the group did not settle in a minute, its state is %s", state)
}

func (c *collector) missing() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left
}

func (c *collector) take(member int, record *kgo.Record) {
	path := string(record.Key)
	index := record.Offset - c.start[record.Partition]
	c.mu.Lock()
	seen := c.seen[record.Partition]
	if index < 0 || index >= int64(len(seen)) {
		c.problem("offset %d of partition %d is outside its bounds", record.Offset, record.Partition)
		c.mu.Unlock()
		return
	}
	if seen[index] {
		c.report.Redelivered++
		c.mu.Unlock()
		return
	}
	seen[index] = true
	c.report.Records++
	c.report.Bytes += int64(len(record.Value))
	c.report.Members[member]++
	again := c.paths[path]
	c.paths[path] = true
	if again {
		c.report.Duplicates = append(c.report.Duplicates, path)
	}
	c.mu.Unlock()

	var err error
	switch {
	case !filepath.IsLocal(path):
		err = fmt.Errorf("not a relative path")
	case record.Value == nil:
		err = fmt.Errorf("null value")
	default:
		name := filepath.Join(c.out, path)
		if err = os.MkdirAll(filepath.Dir(name), 0o755); err == nil {
			err = os.WriteFile(name, record.Value, 0o644)
		}
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.problem("%q: %v", path, err)
	}
	// Only now: who waits for the end may look at the files.
	if c.left--; c.left == 0 {
		close(c.done)
	}
}

// problem notes the first hundred; the lock is held.
func (c *collector) problem(format string, arguments ...any) {
	if len(c.report.Problems) < 100 {
		c.report.Problems = append(c.report.Problems, fmt.Sprintf(format, arguments...))
	}
}
