import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/** Distinct events per video, type and minute by Flink's DataStream: CountJob BROKERS TOPIC OUT_TOPIC FOLDER PARALLELISM. */
public class CountJob {
    static final List<String> TYPES = List.of("view", "like", "share");
    static final long MINUTE_MS = 60_000;

    public static class Event {
        public String video;
        public int type;
        public long time;
        public long idHigh;
        public long idLow;
    }

    static class Parser extends AbstractDeserializationSchema<Event> {
        private transient JsonFactory json;

        @Override
        public void open(InitializationContext context) {
            json = new JsonFactory();
        }

        @Override
        public Event deserialize(byte[] record) throws IOException {
            Event event = new Event();
            try (JsonParser parser = json.createParser(record)) {
                parser.nextToken();
                while (parser.nextToken() == JsonToken.FIELD_NAME) {
                    String field = parser.currentName();
                    parser.nextToken();
                    switch (field) {
                        case "event_id" -> {
                            UUID id = UUID.fromString(parser.getText());
                            event.idHigh = id.getMostSignificantBits();
                            event.idLow = id.getLeastSignificantBits();
                        }
                        case "video_id" -> event.video = parser.getText();
                        case "event_type" -> event.type = TYPES.indexOf(parser.getText());
                        case "timestamp" -> event.time = parser.getLongValue();
                        default -> { }
                    }
                }
            }
            return event;
        }
    }

    /** The counts of one video's minute, and the ids that they counted, by open addressing: no id is zero. */
    public static class Minute {
        public int[] counts = new int[TYPES.size()];
        public long[] ids = new long[8];
        public int size;

        void count(Event event) {
            if (!insert(event.idHigh, event.idLow)) {
                return;
            }
            counts[event.type]++;
            size++;
            if (size * 3 > ids.length) {
                long[] before = ids;
                ids = new long[before.length * 2];
                for (int i = 0; i < before.length; i += 2) {
                    if ((before[i] | before[i + 1]) != 0) {
                        insert(before[i], before[i + 1]);
                    }
                }
            }
        }

        private boolean insert(long high, long low) {
            long mixed = (high ^ low) * 0x9E3779B97F4A7C15L;
            int slot = (int) (mixed >>> 32) * 2 & ids.length - 1;
            while ((ids[slot] | ids[slot + 1]) != 0) {
                if (ids[slot] == high && ids[slot + 1] == low) {
                    return false;
                }
                slot = slot + 2 & ids.length - 1;
            }
            ids[slot] = high;
            ids[slot + 1] = low;
            return true;
        }
    }

    static class Count extends KeyedProcessFunction<String, Event, String> {
        private transient MapState<Long, Minute> minutes;

        @Override
        public void open(OpenContext context) {
            minutes = getRuntimeContext().getMapState(new MapStateDescriptor<>("minutes", Long.class, Minute.class));
        }

        @Override
        public void processElement(Event event, Context context, Collector<String> rows) throws Exception {
            long start = event.time - event.time % MINUTE_MS;
            long last = start + MINUTE_MS - 1;
            if (last <= context.timerService().currentWatermark()) {
                return;
            }
            Minute minute = minutes.get(start);
            if (minute == null) {
                minute = new Minute();
                minutes.put(start, minute);
                context.timerService().registerEventTimeTimer(last);
            }
            minute.count(event);
        }

        @Override
        public void onTimer(long last, OnTimerContext context, Collector<String> rows) throws Exception {
            long start = last + 1 - MINUTE_MS;
            int[] counts = minutes.get(start).counts;
            for (int type = 0; type < counts.length; type++) {
                if (counts[type] > 0) {
                    rows.collect(context.getCurrentKey() + "\t" + TYPES.get(type) + "\t" + start + "\t" + counts[type]);
                }
            }
            minutes.remove(start);
        }
    }

    static Properties properties(Map<String, String> map) {
        Properties properties = new Properties();
        properties.putAll(map);
        return properties;
    }

    public static void main(String[] arguments) throws Exception {
        String brokers = arguments[0];
        StreamExecutionEnvironment job = StreamExecutionEnvironment.createLocalEnvironment(Configuration.fromMap(Map.of(
                "parallelism.default", arguments[4],
                "pipeline.object-reuse", "true",
                "state.backend.type", "hashmap",
                "execution.checkpointing.interval", "10 s",
                "execution.checkpointing.mode", "EXACTLY_ONCE",
                "execution.checkpointing.dir", "file://" + arguments[3],
                "taskmanager.memory.network.min", "256 mb",
                "taskmanager.memory.network.max", "256 mb")));
        KafkaSource<Event> source = KafkaSource.<Event>builder()
                .setBootstrapServers(brokers)
                .setTopics(arguments[1])
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setBounded(OffsetsInitializer.latest())
                .setValueOnlyDeserializer(new Parser())
                .setProperties(properties(Map.of(
                        "max.poll.records", "4000",
                        "max.partition.fetch.bytes", "4194304",
                        "fetch.max.bytes", "8388608",
                        "receive.buffer.bytes", "1048576")))
                .build();
        KafkaSink<String> sink = KafkaSink.<String>builder()
                .setBootstrapServers(brokers)
                .setRecordSerializer(KafkaRecordSerializationSchema.builder()
                        .setTopic(arguments[2])
                        .setValueSerializationSchema(new SimpleStringSchema())
                        .build())
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix(arguments[2])
                .setKafkaProducerConfig(properties(Map.of(
                        "batch.size", "262144",
                        "linger.ms", "50",
                        "transaction.timeout.ms", "600000")))
                .build();
        WatermarkStrategy<Event> watermarks = WatermarkStrategy.<Event>forBoundedOutOfOrderness(Duration.ofSeconds(30))
                .withTimestampAssigner((event, ignored) -> event.time);
        job.fromSource(source, watermarks, "events").keyBy(event -> event.video).process(new Count()).sinkTo(sink);
        job.execute();
    }
}
