#include "source/dis/stream.h"

static const char *const start_names[] = { [DIS_TRIM_HORIZON] = "TrimHorizon",
                                           [DIS_LATEST] = "Latest",
                                           [DIS_AT_TIMESTAMP] = "AtTimestamp",
                                           [DIS_AT_SEQUENCE_NUMBER] = "AtSequenceNumber",
                                           NULL };
static const struct field dis_fields[] = {
        FIELD(STRING, "streamName", struct dis_spec, stream, .required = true, .min = 1, .max = 64,
              .pattern = "^[A-Za-z0-9_-]+$", .format = "a stream's name", .cloud = "stream_name",
              .help = "The stream's name."),
        FIELD(STRING, "appName", struct dis_spec, app, .min = 1, .max = 200, .pattern = "^[A-Za-z0-9_-]+$",
              .format = "1 to 200 letters, digits, _ and -",
              .help = "The app that holds the checkpoints, made when there is none; by default "
                      "sluice_NAMESPACE_NAME. Of a stream an app belongs to one Trigger: two would lose "
                      "each other's records."),
        FIELD(ENUM, "startPosition", struct dis_spec, start, .fallback = "Latest", .values = start_names,
              .cloud = "sharditerator_type",
              .help = "Where the app begins at its first start: TrimHorizon reads all there is, Latest only "
                      "what comes from then on. Partitions that appear later are read from their beginning."),
        FIELD(TIME, "startTimestamp", struct dis_spec, start_timestamp,
              .help = "With AtTimestamp: records since then are read."),
        FIELD(INT, "startSequenceNumber", struct dis_spec, start_sequence, .min = 0, .max = INT64_MAX,
              .help = "With AtSequenceNumber: where each partition begins."),
        FIELD(BOOL, "serial", struct dis_spec, serial, .fallback = "false", .cloud = "is_serial",
              .help = "true: of a partition nothing is fetched until all that was fetched before is done."),
        FIELD(INT, "maxFetchBytes", struct dis_spec, max_fetch_bytes, .fallback = "1048576", .min = 1024,
              .max = 4194304, .cloud = "max_fetch_bytes",
              .help = "What one request may bring, in bytes. A record that is larger is never brought: it "
                      "holds its partition up, and a warning and the status say so."),
        FIELD(DURATION, "pollingInterval", struct dis_spec, polling_interval, .min = 2 * USEC_MSEC,
              .max = USEC_MINUTE, .cloud = "polling_interval",
              .help = "The pause after a request that found nothing; while there are records nothing "
                      "waits. By default a second, and up to three while nothing comes."),
        FIELD(OBJECT, "cloud", struct dis_spec, cloud, .object = &cloud_type,
              .help = "Where the stream is, and as whom it is read."),
};
static bool has_timestamp(const void *object)
{
        const struct dis_spec *spec = object;

        return (spec->start == DIS_AT_TIMESTAMP) == (spec->start_timestamp != 0);
}
static bool has_sequence(const void *object)
{
        const struct dis_spec *spec = object;

        return (spec->start == DIS_AT_SEQUENCE_NUMBER) == (spec->start_sequence >= 0);
}
static const struct rule dis_rules[] = {
        RULE(.cel = "(self.startPosition == 'AtTimestamp') == has(self.startTimestamp)",
             .message = "startTimestamp goes with startPosition AtTimestamp, and only with it",
             .path = "startTimestamp", .check = has_timestamp),
        RULE(.cel = "(self.startPosition == 'AtSequenceNumber') == has(self.startSequenceNumber)",
             .message = "startSequenceNumber goes with startPosition AtSequenceNumber, and only with it",
             .path = "startSequenceNumber", .check = has_sequence),
};
const struct type dis_type = TYPE(
        "DisSource", struct dis_spec, dis_fields,
        "Records of a stream of the Data Ingestion Service, in order within a partition.", RULES(dis_rules));

void dis_app(const struct dis_spec *spec, const struct trigger *t, struct buf *b)
{
        if (spec->app)
                buf_text(b, spec->app);
        else
                buf_printf(b, "sluice_%s_%s", t->namespace_, t->name);
}

static bool is_same(const char *a, const char *b) { return string_equal(a ? a : "", b ? b : ""); }

static bool is_same_place(const struct cloud_spec *a, const struct cloud_spec *b)
{
        static const struct cloud_spec by_default = { 0 };

        a = a ? a : &by_default;
        b = b ? b : &by_default;
        return is_same(a->region, b->region) && is_same(a->project_id, b->project_id) &&
               is_same(a->endpoint, b->endpoint);
}

void dis_clash_key(const struct trigger *t, struct buf *key)
{
        static const struct cloud_spec by_default = { 0 };
        const struct dis_spec *spec = t->source_spec;
        const struct cloud_spec *cloud = spec->cloud ? spec->cloud : &by_default;
        const char *const parts[] = { spec->stream, cloud->region, cloud->project_id, cloud->endpoint };

        for (size_t i = 0; i < COUNT_OF(parts); i++)
                buf_printf(key, "%s\n", parts[i] ? parts[i] : "");
        dis_app(spec, t, key);
}

bool dis_clash(const struct trigger *one, const struct trigger *two, struct buf *why)
{
        const struct dis_spec *a = one->source_spec, *b = two->source_spec;
        BUF_AT_END struct buf app = BUF_INIT(1024), other = BUF_INIT(1024);

        if (!is_same(a->stream, b->stream) || !is_same_place(a->cloud, b->cloud))
                return false;
        dis_app(a, one, &app);
        dis_app(b, two, &other);
        if (app.failed || other.failed || !str_equal(buf_view(&app), buf_view(&other)))
                return false;
        buf_printf(
                why,
                "read stream %s as the same app, %s: it holds one position of each partition, and what one "
                "of them has done the other would not read after a restart; give each an app of its own",
                a->stream, app.p);
        return true;
}

void dis_origin(const struct trigger *t, struct buf *b)
{
        const struct dis_spec *spec = t->source_spec;

        buf_printf(b, "%s/", spec->stream);
        dis_app(spec, t, b);
}
