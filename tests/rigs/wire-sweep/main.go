// wire-sweep asks a broker every API in every version it advertises, with an
// encoder and decoder that are not the broker's own.
//
//	tests/rigs/sweep --bootstrap HOST:PORT
//
// For each version a whole scenario runs: a topic is made, written, read and
// changed, a group forms, commits and goes. An answer must
//
//   - decode, with no byte left over;
//   - encode again to the same bytes: then every field stood where this version
//     of the format has it;
//   - carry no error code, unless the step expects one;
//   - say what the scenario made true.
//
// Advertised versions of the APIs driven here that no scenario reached are
// failures; APIs that are not driven are named.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	timeout    = 20 * time.Second
	partitions = 2
	// The newest version of any API here; a scenario at it reaches every newest one.
	newest = 18

	topicExists       = 36
	groupNotFound     = 69
	memberIDRequired  = 79
	electionNotNeeded = 84
)

// UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, COORDINATOR_LOAD_IN_PROGRESS,
// COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR, UNKNOWN_TOPIC_ID.
var passing = []int16{3, 5, 14, 15, 16, 100}

type sweep struct {
	conn    net.Conn
	ranges  map[int16][2]int16
	covered map[[2]int16]bool
	calls   int
	failed  []string
	format  *kmsg.RequestFormatter
	name    string
}

func main() {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT")
	flag.Parse()
	conn, err := net.DialTimeout("tcp", *bootstrap, timeout)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	s := &sweep{
		conn:    conn,
		covered: map[[2]int16]bool{},
		format:  kmsg.NewRequestFormatter(kmsg.FormatterClientID("wire-sweep")),
		name:    fmt.Sprintf("sweep-%d", time.Now().UnixNano()),
	}
	// What is advertised, in the version every broker has.
	s.ranges = map[int16][2]int16{18: {0, 0}}
	versions, err := s.apiVersions(0)
	if err != nil {
		fmt.Println("FAIL ApiVersions v0:", err)
		os.Exit(1)
	}
	s.ranges = map[int16][2]int16{}
	for _, key := range versions.ApiKeys {
		s.ranges[key.ApiKey] = [2]int16{key.MinVersion, key.MaxVersion}
	}
	for version := range int16(newest + 1) {
		s.scenario(version)
	}
	s.coverage()
	if len(s.failed) > 0 {
		fmt.Printf("wire-sweep: %d failed of %d requests\n", len(s.failed), s.calls)
		os.Exit(1)
	}
	fmt.Printf("wire-sweep: %d requests, %d versions of APIs, all as expected\n", s.calls, len(s.covered))
}

// fail notes a failure once, however many scenarios meet it.
func (s *sweep) fail(what string, err error) {
	text := fmt.Sprintf("%s: %v", what, err)
	if !slices.Contains(s.failed, text) {
		s.failed = append(s.failed, text)
		fmt.Println("FAIL", text)
	}
}

// served says whether the broker advertises the API at all.
func (s *sweep) served(req kmsg.Request) bool {
	_, ok := s.ranges[req.Key()]
	return ok
}

// ask sends the request in the advertised version nearest to `version` and
// checks the answer's form. Error codes other than the allowed ones fail the
// step. It returns nil when there is no answer to look at.
func ask[R kmsg.Response](s *sweep, version int16, req kmsg.Request, allowed ...int16) (response R, ok bool) {
	if !s.served(req) {
		return response, false
	}
	bounds := s.ranges[req.Key()]
	if req.Key() == 0 {
		bounds[0] = max(bounds[0], 3) // advertised from 0 for old librdkafka, served from 3
	}
	req.SetVersion(min(max(version, bounds[0]), bounds[1], req.MaxVersion()))
	what := fmt.Sprintf("%s v%d", kmsg.NameForKey(req.Key()), req.GetVersion())
	answer, err := s.exchange(req)
	for tries := 0; err == nil && tries < 50 && s.notYet(answer, allowed); tries++ {
		time.Sleep(100 * time.Millisecond)
		answer, err = s.exchange(req)
	}
	if err != nil {
		s.fail(what, err)
		return response, false
	}
	for path, code := range errorCodes(reflect.ValueOf(answer), "") {
		if !slices.Contains(allowed, code) {
			s.fail(what, fmt.Errorf("%s is %d", path, code))
			return response, false
		}
	}
	s.covered[[2]int16{req.Key(), req.GetVersion()}] = true
	return answer.(R), true
}

// notYet says whether the answer carries a code that only asks for patience, as
// where the news of a topic or the place of a coordinator takes a moment.
func (s *sweep) notYet(answer kmsg.Response, allowed []int16) bool {
	for _, code := range errorCodes(reflect.ValueOf(answer), "") {
		if !slices.Contains(allowed, code) && slices.Contains(passing, code) {
			return true
		}
	}
	return false
}

// expect is for what an answer says.
func (s *sweep) expect(req kmsg.Request, what string, got, want any) {
	if !reflect.DeepEqual(got, want) {
		s.fail(fmt.Sprintf("%s v%d", kmsg.NameForKey(req.Key()), req.GetVersion()),
			fmt.Errorf("%s: got %v, want %v", what, got, want))
	}
}

func (s *sweep) exchange(req kmsg.Request) (kmsg.Response, error) {
	s.calls++
	correlation := int32(s.calls)
	s.conn.SetDeadline(time.Now().Add(timeout))
	if _, err := s.conn.Write(s.format.AppendRequest(nil, req, correlation)); err != nil {
		return nil, s.lost(err)
	}
	size := make([]byte, 4)
	if _, err := io.ReadFull(s.conn, size); err != nil {
		return nil, s.lost(err)
	}
	frame := make([]byte, binary.BigEndian.Uint32(size))
	if _, err := io.ReadFull(s.conn, frame); err != nil {
		return nil, s.lost(err)
	}
	if got := int32(binary.BigEndian.Uint32(frame)); got != correlation {
		return nil, fmt.Errorf("correlation id %d, want %d", got, correlation)
	}
	body := frame[4:]
	// The header of ApiVersions has no tags, so that old clients can read it.
	if req.IsFlexible() && req.Key() != 18 {
		if len(body) == 0 || body[0] != 0 {
			return nil, errors.New("the header of a flexible answer has no empty tag section")
		}
		body = body[1:]
	}
	response := req.ResponseKind()
	response.SetVersion(req.GetVersion())
	if err := response.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("does not decode: %w (%d bytes: %x)", err, len(body), body[:min(len(body), 200)])
	}
	if again := response.AppendTo(nil); !bytes.Equal(again, body) {
		at := 0
		for at < min(len(again), len(body)) && again[at] == body[at] {
			at++
		}
		return nil, fmt.Errorf("encodes again to %d bytes instead of %d, differing from byte %d", len(again), len(body), at)
	}
	return response, nil
}

// lost opens a new connection after one that broke, so that the sweep goes on.
func (s *sweep) lost(cause error) error {
	address := s.conn.RemoteAddr().String()
	s.conn.Close()
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		fmt.Println("FAIL the broker is gone:", err)
		os.Exit(1)
	}
	s.conn = conn
	return fmt.Errorf("connection lost: %w", cause)
}

// errorCodes finds every field named ErrorCode that is not 0.
func errorCodes(v reflect.Value, path string) map[string]int16 {
	found := map[string]int16{}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return errorCodes(v.Elem(), path)
		}
	case reflect.Slice:
		for i := range v.Len() {
			for at, code := range errorCodes(v.Index(i), fmt.Sprintf("%s[%d]", path, i)) {
				found[at] = code
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if name == "ErrorCode" && v.Field(i).Int() != 0 {
				found[strings.TrimPrefix(path+".ErrorCode", ".")] = int16(v.Field(i).Int())
			} else if v.Type().Field(i).IsExported() {
				for at, code := range errorCodes(v.Field(i), path+"."+name) {
					found[at] = code
				}
			}
		}
	}
	return found
}

func (s *sweep) coverage() {
	var undriven []string
	for key, bounds := range s.ranges {
		driven := false
		for pair := range s.covered {
			driven = driven || pair[0] == key
		}
		name := kmsg.NameForKey(key)
		if !driven {
			undriven = append(undriven, fmt.Sprintf("%s %d-%d", name, bounds[0], bounds[1]))
			continue
		}
		for version := bounds[0]; version <= bounds[1]; version++ {
			if key == 0 && version < 3 || s.covered[[2]int16{key, version}] {
				continue
			}
			if version > kmsg.RequestForKey(key).MaxVersion() {
				fmt.Printf("note: %s v%d is newer than this codec\n", name, version)
				continue
			}
			s.fail(fmt.Sprintf("%s v%d", name, version), errors.New("advertised, but no request of it succeeded"))
		}
	}
	slices.Sort(undriven)
	if len(undriven) > 0 {
		fmt.Println("note: advertised, not driven:", strings.Join(undriven, ", "))
	}
}

func (s *sweep) apiVersions(version int16) (*kmsg.ApiVersionsResponse, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "wire-sweep", "0"
	answer, ok := ask[*kmsg.ApiVersionsResponse](s, version, req)
	if !ok {
		return nil, errors.New("no answer")
	}
	return answer, nil
}

func (s *sweep) scenario(v int16) {
	topic := fmt.Sprintf("%s-%d", s.name, v)
	s.apiVersions(v)
	s.cluster(v)
	id := s.create(v, topic)
	if id == nil {
		return
	}
	s.configs(v, topic)
	batch := s.write(v, topic, *id)
	s.read(v, topic, *id, batch)
	s.group(v, topic, *id)
	s.remove(v, topic, *id)
}

func (s *sweep) cluster(v int16) {
	describe := kmsg.NewPtrDescribeClusterRequest()
	if d, ok := ask[*kmsg.DescribeClusterResponse](s, v, describe); ok {
		s.expect(describe, "brokers there", len(d.Brokers) > 0, true)
		known := slices.ContainsFunc(d.Brokers, func(b kmsg.DescribeClusterResponseBroker) bool { return b.NodeID == d.ControllerID })
		s.expect(describe, "controller is a broker", known, true)
	}
	list := kmsg.NewPtrListPartitionReassignmentsRequest()
	list.TimeoutMillis = 5000
	ask[*kmsg.ListPartitionReassignmentsResponse](s, v, list)
}

// create makes the topic and returns its id; nil when that failed.
func (s *sweep) create(v int16, topic string) *[16]byte {
	create := kmsg.NewPtrCreateTopicsRequest()
	create.TimeoutMillis = 10000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, partitions, 1
	c := kmsg.NewCreateTopicsRequestTopicConfig()
	c.Name, c.Value = "retention.ms", kmsg.StringPtr("3600000")
	t.Configs = append(t.Configs, c)
	create.Topics = append(create.Topics, t)
	created, ok := ask[*kmsg.CreateTopicsResponse](s, v, create)
	if !ok {
		return nil
	}
	if create.GetVersion() >= 5 {
		// The Java client fails on a null list and on a source it does not know.
		s.expect(create, "partitions", created.Topics[0].NumPartitions, int32(partitions))
		s.expect(create, "configs there", len(created.Topics[0].Configs) > 0, true)
		for _, config := range created.Topics[0].Configs {
			s.expect(create, "source of "+config.Name+" known", config.Source > 0, true)
		}
	}
	ask[*kmsg.CreateTopicsResponse](s, v, create, topicExists)

	more := kmsg.NewPtrCreatePartitionsRequest()
	more.TimeoutMillis = 10000
	p := kmsg.NewCreatePartitionsRequestTopic()
	p.Topic, p.Count = topic, partitions+1
	more.Topics = append(more.Topics, p)
	want := partitions + 1
	if m, ok := ask[*kmsg.CreatePartitionsResponse](s, v, more); ok {
		s.expect(more, "topics in the answer", len(m.Topics), 1)
	} else {
		want = partitions
	}

	elect := kmsg.NewPtrElectLeadersRequest()
	elect.TimeoutMillis = 10000
	et := kmsg.NewElectLeadersRequestTopic()
	et.Topic, et.Partitions = topic, []int32{0}
	elect.Topics = append(elect.Topics, et)
	ask[*kmsg.ElectLeadersResponse](s, v, elect, electionNotNeeded)

	var id [16]byte
	metadata := kmsg.NewPtrMetadataRequest()
	named := kmsg.NewMetadataRequestTopic()
	named.Topic = &topic
	metadata.Topics = append(metadata.Topics, named)
	// Topic ids are in Metadata from version 10; ask twice, once for this version's form.
	for _, version := range []int16{v, newest} {
		m, ok := ask[*kmsg.MetadataResponse](s, version, metadata)
		for tries := 0; ok && tries < 50 && len(m.Topics[0].Partitions) != want; tries++ {
			time.Sleep(100 * time.Millisecond)
			m, ok = ask[*kmsg.MetadataResponse](s, version, metadata)
		}
		if !ok {
			return nil
		}
		s.expect(metadata, "topics", len(m.Topics), 1)
		s.expect(metadata, "partitions", len(m.Topics[0].Partitions), want)
		id = m.Topics[0].TopicID
	}
	all := kmsg.NewPtrMetadataRequest()
	if v > 0 {
		all.Topics = nil
	}
	if m, ok := ask[*kmsg.MetadataResponse](s, v, all, 3, 5); ok {
		found := slices.ContainsFunc(m.Topics, func(t kmsg.MetadataResponseTopic) bool { return t.Topic != nil && *t.Topic == topic })
		s.expect(all, "topic among all", found, true)
	}
	return &id
}

func retention(d *kmsg.DescribeConfigsResponse) string {
	for _, config := range d.Resources[0].Configs {
		if config.Name == "retention.ms" && config.Value != nil {
			return *config.Value
		}
	}
	return ""
}

func (s *sweep) configs(v int16, topic string) {
	value := func(want string) {
		describe := kmsg.NewPtrDescribeConfigsRequest()
		describe.IncludeSynonyms, describe.IncludeDocumentation = true, true
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
		r.ConfigNames = nil
		describe.Resources = append(describe.Resources, r)
		d, ok := ask[*kmsg.DescribeConfigsResponse](s, v, describe)
		if !ok {
			return
		}
		for tries := 0; ok && tries < 50 && retention(d) != want; tries++ {
			time.Sleep(100 * time.Millisecond)
			d, ok = ask[*kmsg.DescribeConfigsResponse](s, v, describe)
		}
		if !ok {
			return
		}
		for _, config := range d.Resources[0].Configs {
			if describe.GetVersion() >= 1 {
				s.expect(describe, "source of "+config.Name+" known", config.Source > 0, true)
			}
			if describe.GetVersion() >= 3 {
				s.expect(describe, "type of "+config.Name+" known", config.ConfigType > 0, true)
			}
		}
		s.expect(describe, "retention.ms", retention(d), want)
	}
	value("3600000")
	increment := kmsg.NewPtrIncrementalAlterConfigsRequest()
	i := kmsg.NewIncrementalAlterConfigsRequestResource()
	i.ResourceType, i.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	ic := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	ic.Name, ic.Value = "retention.ms", kmsg.StringPtr("7200000")
	i.Configs = append(i.Configs, ic)
	increment.Resources = append(increment.Resources, i)
	if _, ok := ask[*kmsg.IncrementalAlterConfigsResponse](s, v, increment); ok {
		value("7200000")
	}
	alter := kmsg.NewPtrAlterConfigsRequest()
	a := kmsg.NewAlterConfigsRequestResource()
	a.ResourceType, a.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	ac := kmsg.NewAlterConfigsRequestResourceConfig()
	ac.Name, ac.Value = "retention.ms", kmsg.StringPtr("1800000")
	a.Configs = append(a.Configs, ac)
	alter.Resources = append(alter.Resources, a)
	if _, ok := ask[*kmsg.AlterConfigsResponse](s, v, alter); ok {
		value("1800000")
	}
}

// newBatch is a batch of three records, not compressed.
func newBatch(producerID int64, epoch int16) []byte {
	var records []byte
	for i := range int32(3) {
		// length, attributes, timestamp delta, offset delta, key, value, headers; varints are zigzag
		record := []byte{0, 0, byte(i) << 1, 2, 'k', 2, 'v', 0}
		records = append(records, byte(len(record))<<1)
		records = append(records, record...)
	}
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		Length:               int32(49 + len(records)),
		PartitionLeaderEpoch: -1,
		Magic:                2,
		LastOffsetDelta:      2,
		FirstTimestamp:       now,
		MaxTimestamp:         now,
		ProducerID:           producerID,
		ProducerEpoch:        epoch,
		FirstSequence:        0,
		NumRecords:           3,
		Records:              records,
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

func (s *sweep) write(v int16, topic string, id [16]byte) []byte {
	identify := kmsg.NewPtrInitProducerIDRequest()
	identify.TransactionTimeoutMillis = 60000
	identify.ProducerID, identify.ProducerEpoch = -1, -1
	batch := newBatch(-1, -1)
	if p, ok := ask[*kmsg.InitProducerIDResponse](s, v, identify); ok {
		s.expect(identify, "epoch", p.ProducerEpoch, int16(0))
		batch = newBatch(p.ProducerID, p.ProducerEpoch)
	}
	produce := kmsg.NewPtrProduceRequest()
	produce.Acks, produce.TimeoutMillis = -1, 15000
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.TopicID = topic, id
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = batch
	t.Partitions = append(t.Partitions, p)
	produce.Topics = append(produce.Topics, t)
	// The second is a repetition by an idempotent producer: the same offset.
	for range 2 {
		if a, ok := ask[*kmsg.ProduceResponse](s, v, produce); ok {
			s.expect(produce, "base offset", a.Topics[0].Partitions[0].BaseOffset, int64(0))
			if produce.GetVersion() >= 5 {
				s.expect(produce, "log start offset", a.Topics[0].Partitions[0].LogStartOffset, int64(0))
			}
		}
	}
	return batch
}

func (s *sweep) read(v int16, topic string, id [16]byte, batch []byte) {
	for _, lookup := range []struct{ timestamp, offset int64 }{{-1, 3}, {-2, 0}, {1, 0}} {
		list := kmsg.NewPtrListOffsetsRequest()
		list.ReplicaID, list.TimeoutMillis = -1, 10000
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Timestamp, p.CurrentLeaderEpoch = lookup.timestamp, -1
		t.Partitions = append(t.Partitions, p)
		list.Topics = append(list.Topics, t)
		if l, ok := ask[*kmsg.ListOffsetsResponse](s, v, list); ok {
			s.expect(list, fmt.Sprintf("offset for %d", lookup.timestamp), l.Topics[0].Partitions[0].Offset, lookup.offset)
		}
	}

	fetch := kmsg.NewPtrFetchRequest()
	fetch.ReplicaID, fetch.MaxWaitMillis, fetch.MinBytes, fetch.MaxBytes = -1, 5000, 1, 1<<20
	fetch.SessionEpoch = -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, id
	p := kmsg.NewFetchRequestTopicPartition()
	p.PartitionMaxBytes, p.CurrentLeaderEpoch, p.LastFetchedEpoch = 1<<20, -1, -1
	t.Partitions = append(t.Partitions, p)
	fetch.Topics = append(fetch.Topics, t)
	if f, ok := ask[*kmsg.FetchResponse](s, v, fetch); ok {
		if len(f.Topics) != 1 || len(f.Topics[0].Partitions) != 1 {
			s.expect(fetch, "topics", len(f.Topics), 1)
		} else {
			got := f.Topics[0].Partitions[0]
			s.expect(fetch, "high watermark", got.HighWatermark, int64(3))
			s.expect(fetch, "last stable offset", got.LastStableOffset, int64(3))
			// The broker writes the base offset and the leader epoch; the rest is as sent.
			same := len(got.RecordBatches) == len(batch) && bytes.Equal(got.RecordBatches[16:], batch[16:])
			s.expect(fetch, "the batch as it was sent", same, true)
		}
	}

	epoch := kmsg.NewPtrOffsetForLeaderEpochRequest()
	epoch.ReplicaID = -1
	et := kmsg.NewOffsetForLeaderEpochRequestTopic()
	et.Topic = topic
	ep := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	ep.CurrentLeaderEpoch, ep.LeaderEpoch = -1, 0
	et.Partitions = append(et.Partitions, ep)
	epoch.Topics = append(epoch.Topics, et)
	if e, ok := ask[*kmsg.OffsetForLeaderEpochResponse](s, v, epoch); ok {
		s.expect(epoch, "end offset", e.Topics[0].Partitions[0].EndOffset, int64(3))
	}

	dirs := kmsg.NewPtrDescribeLogDirsRequest()
	dt := kmsg.NewDescribeLogDirsRequestTopic()
	dt.Topic, dt.Partitions = topic, []int32{0}
	dirs.Topics = append(dirs.Topics, dt)
	if d, ok := ask[*kmsg.DescribeLogDirsResponse](s, v, dirs); ok {
		size := int64(0)
		for _, dir := range d.Dirs {
			for _, t := range dir.Topics {
				for _, p := range t.Partitions {
					size += p.Size
				}
			}
		}
		s.expect(dirs, "size is known", size > 0, true)
	}

	producers := kmsg.NewPtrDescribeProducersRequest()
	pt := kmsg.NewDescribeProducersRequestTopic()
	pt.Topic, pt.Partitions = topic, []int32{0}
	producers.Topics = append(producers.Topics, pt)
	ask[*kmsg.DescribeProducersResponse](s, v, producers)
}

func (s *sweep) group(v int16, topic string, id [16]byte) {
	group := topic + "-group"
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorKey, find.CoordinatorKeys = group, []string{group}
	ask[*kmsg.FindCoordinatorResponse](s, v, find)

	subscription := kmsg.NewConsumerMemberMetadata()
	subscription.Topics = []string{topic}
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.ProtocolType = group, "consumer"
	join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 10000, 10000
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = "range", subscription.AppendTo(nil)
	join.Protocols = append(join.Protocols, protocol)
	joined, ok := ask[*kmsg.JoinGroupResponse](s, v, join, memberIDRequired)
	if ok && joined.ErrorCode == memberIDRequired {
		join.MemberID = joined.MemberID
		joined, ok = ask[*kmsg.JoinGroupResponse](s, v, join)
	}
	if !ok {
		return
	}
	s.expect(join, "leader", joined.LeaderID, joined.MemberID)
	s.expect(join, "members", len(joined.Members), 1)
	s.expect(join, "protocol", joined.Protocol != nil && *joined.Protocol == "range", true)
	member, generation := joined.MemberID, joined.Generation

	assignment := kmsg.NewConsumerMemberAssignment()
	at := kmsg.NewConsumerMemberAssignmentTopic()
	at.Topic, at.Partitions = topic, []int32{0, 1}
	assignment.Topics = append(assignment.Topics, at)
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.Generation, sync.MemberID = group, generation, member
	sync.ProtocolType, sync.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
	sa := kmsg.NewSyncGroupRequestGroupAssignment()
	sa.MemberID, sa.MemberAssignment = member, assignment.AppendTo(nil)
	sync.GroupAssignment = append(sync.GroupAssignment, sa)
	if a, ok := ask[*kmsg.SyncGroupResponse](s, v, sync); ok {
		s.expect(sync, "assignment", a.MemberAssignment, sa.MemberAssignment)
	}

	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.Generation, beat.MemberID = group, generation, member
	ask[*kmsg.HeartbeatResponse](s, v, beat)

	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{group}
	if d, ok := ask[*kmsg.DescribeGroupsResponse](s, v, describe); ok {
		s.expect(describe, "state", d.Groups[0].State, "Stable")
		s.expect(describe, "members", len(d.Groups[0].Members), 1)
		s.expect(describe, "assignment", d.Groups[0].Members[0].MemberAssignment, sa.MemberAssignment)
	}
	list := kmsg.NewPtrListGroupsRequest()
	if l, ok := ask[*kmsg.ListGroupsResponse](s, v, list); ok {
		found := slices.ContainsFunc(l.Groups, func(g kmsg.ListGroupsResponseGroup) bool { return g.Group == group })
		s.expect(list, "group among all", found, true)
	}

	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.Generation, commit.MemberID = group, generation, member
	commit.RetentionTimeMillis = -1
	ct := kmsg.NewOffsetCommitRequestTopic()
	ct.Topic, ct.TopicID = topic, id
	cp := kmsg.NewOffsetCommitRequestTopicPartition()
	cp.Offset, cp.LeaderEpoch, cp.Metadata = 2, 0, kmsg.StringPtr("a note")
	ct.Partitions = append(ct.Partitions, cp)
	commit.Topics = append(commit.Topics, ct)
	ask[*kmsg.OffsetCommitResponse](s, v, commit)
	s.committed(v, group, topic, id, 2, "a note")

	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group, leave.MemberID = group, member
	lm := kmsg.NewLeaveGroupRequestMember()
	lm.MemberID = member
	leave.Members = append(leave.Members, lm)
	ask[*kmsg.LeaveGroupResponse](s, v, leave)

	forget := kmsg.NewPtrOffsetDeleteRequest()
	forget.Group = group
	ft := kmsg.NewOffsetDeleteRequestTopic()
	ft.Topic = topic
	ft.Partitions = append(ft.Partitions, kmsg.NewOffsetDeleteRequestTopicPartition())
	forget.Topics = append(forget.Topics, ft)
	if _, ok := ask[*kmsg.OffsetDeleteResponse](s, v, forget); ok {
		s.committed(v, group, topic, id, -1, "")
	}

	drop := kmsg.NewPtrDeleteGroupsRequest()
	drop.Groups = []string{group}
	// Where the last offset's deletion ends an empty group, it is already gone.
	ask[*kmsg.DeleteGroupsResponse](s, v, drop, groupNotFound)
}

func (s *sweep) committed(v int16, group, topic string, id [16]byte, offset int64, note string) {
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Group = group
	t := kmsg.NewOffsetFetchRequestTopic()
	t.Topic, t.Partitions = topic, []int32{0}
	fetch.Topics = append(fetch.Topics, t)
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	gt := kmsg.NewOffsetFetchRequestGroupTopic()
	gt.Topic, gt.TopicID, gt.Partitions = topic, id, []int32{0}
	g.Topics = append(g.Topics, gt)
	fetch.Groups = append(fetch.Groups, g)
	f, ok := ask[*kmsg.OffsetFetchResponse](s, v, fetch)
	if !ok {
		return
	}
	var got int64
	var metadata *string
	if fetch.GetVersion() >= 8 {
		p := f.Groups[0].Topics[0].Partitions[0]
		got, metadata = p.Offset, p.Metadata
	} else {
		p := f.Topics[0].Partitions[0]
		got, metadata = p.Offset, p.Metadata
	}
	s.expect(fetch, "committed offset", got, offset)
	s.expect(fetch, "its metadata", metadata != nil && *metadata == note, true)
}

func (s *sweep) remove(v int16, topic string, id [16]byte) {
	cut := kmsg.NewPtrDeleteRecordsRequest()
	cut.TimeoutMillis = 10000
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic = topic
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Offset = 1
	t.Partitions = append(t.Partitions, p)
	cut.Topics = append(cut.Topics, t)
	if c, ok := ask[*kmsg.DeleteRecordsResponse](s, v, cut); ok {
		s.expect(cut, "low watermark", c.Topics[0].Partitions[0].LowWatermark, int64(1))
	}

	drop := kmsg.NewPtrDeleteTopicsRequest()
	drop.TimeoutMillis = 10000
	drop.TopicNames = []string{topic}
	dt := kmsg.NewDeleteTopicsRequestTopic()
	if v%2 == 0 {
		dt.TopicID = id
	} else {
		dt.Topic = &topic
	}
	drop.Topics = append(drop.Topics, dt)
	if d, ok := ask[*kmsg.DeleteTopicsResponse](s, v, drop); ok {
		s.expect(drop, "name in the answer", d.Topics[0].Topic != nil && *d.Topics[0].Topic == topic, true)
	}
}
