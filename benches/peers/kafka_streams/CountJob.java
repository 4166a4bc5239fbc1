import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Distinct events per video, type and minute by Kafka Streams' Processor API: CountJob BROKERS TOPIC OUT_TOPIC FOLDER.
 *
 * Kafka Streams knows no end of input: a task writes its last rows at the offset that was its partition's end at the start.
 */
public class CountJob {
    static final long MINUTE_MS = 60_000;
    static final long LATENESS_MS = 30_000;
    static final long ID_BUCKET_MS = 1_000;
    static final byte[] SEEN = {1};

    static class Count implements Processor<String, byte[], String, String> {
        private final JsonFactory json = new JsonFactory();
        private final Map<Integer, Long> ends;
        private final CountDownLatch open;
        private ProcessorContext<String, String> context;
        private WindowStore<byte[], byte[]> ids;
        /** By minute, video and type, joined by tabs. */
        private KeyValueStore<String, Long> counts;
        private long newest;
        /** Of the first minute that isn't written yet. */
        private long openFrom;

        Count(Map<Integer, Long> ends, CountDownLatch open) {
            this.ends = ends;
            this.open = open;
        }

        @Override
        public void init(ProcessorContext<String, String> context) {
            this.context = context;
            ids = context.getStateStore("ids");
            counts = context.getStateStore("counts");
        }

        @Override
        public void process(Record<String, byte[]> record) {
            try (JsonParser parser = json.createParser(record.value())) {
                count(parser);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            long watermark = newest - LATENESS_MS;
            if (watermark >= openFrom + MINUTE_MS) {
                openFrom = watermark - watermark % MINUTE_MS;
                write(Long.toString(openFrom));
            }
            var at = context.recordMetadata().orElseThrow();
            if (at.offset() + 1 == ends.get(at.partition())) {
                write("~");
                context.commit();
                open.countDown();
            }
        }

        private void count(JsonParser parser) throws IOException {
            byte[] id = null;
            String video = null;
            String type = null;
            long time = 0;
            parser.nextToken();
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                String field = parser.currentName();
                parser.nextToken();
                switch (field) {
                    case "event_id" -> {
                        UUID uuid = UUID.fromString(parser.getText());
                        id = ByteBuffer.allocate(16).putLong(uuid.getMostSignificantBits())
                                .putLong(uuid.getLeastSignificantBits()).array();
                    }
                    case "video_id" -> video = parser.getText();
                    case "event_type" -> type = parser.getText();
                    case "timestamp" -> time = parser.getLongValue();
                    default -> { }
                }
            }
            newest = Math.max(newest, time);
            long start = time - time % MINUTE_MS;
            long bucket = time - time % ID_BUCKET_MS;
            // A repeat has the time of the first.
            if (start < openFrom || ids.fetch(id, bucket) != null) {
                return;
            }
            ids.put(id, SEEN, bucket);
            String key = start + "\t" + video + "\t" + type;
            Long before = counts.get(key);
            counts.put(key, before == null ? 1 : before + 1);
        }

        /** Writes and forgets the counts below a key. */
        private void write(String end) {
            List<KeyValue<String, Long>> rows = new ArrayList<>();
            try (KeyValueIterator<String, Long> below = counts.range(null, end)) {
                below.forEachRemaining(rows::add);
            }
            for (KeyValue<String, Long> row : rows) {
                String[] parts = row.key.split("\t");
                String text = parts[1] + "\t" + parts[2] + "\t" + parts[0] + "\t" + row.value;
                context.forward(new Record<>(parts[1], text, Long.parseLong(parts[0])));
                counts.delete(row.key);
            }
        }
    }

    /** The end offset of each partition. */
    static Map<Integer, Long> ends(String brokers, String topic) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", brokers))) {
            Map<TopicPartition, OffsetSpec> wanted = new HashMap<>();
            admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions()
                    .forEach(partition -> wanted.put(new TopicPartition(topic, partition.partition()), OffsetSpec.latest()));
            Map<Integer, Long> ends = new HashMap<>();
            admin.listOffsets(wanted).all().get().forEach((partition, end) -> ends.put(partition.partition(), end.offset()));
            return ends;
        }
    }

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.putAll(Map.ofEntries(
                Map.entry("application.id", arguments[2]),
                Map.entry("bootstrap.servers", arguments[0]),
                Map.entry("state.dir", arguments[3]),
                Map.entry("num.stream.threads", "2"),
                Map.entry("processing.guarantee", "exactly_once_v2"),
                Map.entry("commit.interval.ms", "10000"),
                Map.entry("statestore.cache.max.bytes", "268435456"),
                Map.entry("buffered.records.per.partition", "4000"),
                Map.entry("replication.factor", "1"),
                Map.entry("group.protocol", "classic"),
                Map.entry("consumer.auto.offset.reset", "earliest"),
                Map.entry("consumer.max.poll.records", "4000"),
                Map.entry("consumer.max.partition.fetch.bytes", "4194304"),
                Map.entry("consumer.fetch.max.bytes", "8388608"),
                Map.entry("consumer.receive.buffer.bytes", "1048576"),
                Map.entry("producer.batch.size", "262144"),
                Map.entry("producer.linger.ms", "50"),
                Map.entry("producer.transaction.timeout.ms", "600000")));
        Map<Integer, Long> ends = ends(arguments[0], arguments[1]);
        CountDownLatch open = new CountDownLatch((int) ends.values().stream().filter(end -> end > 0).count());
        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(Stores.windowStoreBuilder(
                Stores.inMemoryWindowStore("ids", Duration.ofMinutes(3), Duration.ofMillis(ID_BUCKET_MS), false),
                Serdes.ByteArray(), Serdes.ByteArray()));
        builder.addStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("counts"), Serdes.String(), Serdes.Long())
                .withCachingEnabled());
        builder.stream(arguments[1], Consumed.with(Serdes.String(), Serdes.ByteArray()))
                .process(() -> new Count(ends, open), "ids", "counts")
                .to(arguments[2], Produced.with(Serdes.String(), Serdes.String()));
        try (KafkaStreams streams = new KafkaStreams(builder.build(), settings)) {
            streams.start();
            open.await();
        }
    }
}
