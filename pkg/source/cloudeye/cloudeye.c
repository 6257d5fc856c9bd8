#include "source/cloudeye/cloudeye.h"

#include "json/check.h"
#include "json/tree.h"
#include "json/value.h"
#include "source/cloud.h"

static const struct field cloudeye_fields[] = {
        SMN_FIELDS,
        FIELD(STRINGS, "alarms", struct cloudeye_spec, alarms, .max = 100, .item_min_one = true,
              .help = "The alarms that are delivered, by name or id; by default all."),
        FIELD(STRINGS, "severities", struct cloudeye_spec, severities, .max = 4,
              .pattern = "^(Critical|Major|Minor|Informational)$",
              .format = "Critical, Major, Minor or Informational",
              .help = "The levels of alarms that are delivered; by default all."),
        FIELD(STRINGS, "states", struct cloudeye_spec, states, .max = 2, .pattern = "^(alarm|ok)$",
              .format = "alarm or ok",
              .help = "Whether an alarm is delivered when it is raised, when it is over, or both; by default "
                      "both."),
};
static const struct rule cloudeye_rules[] = { TOPIC_RULES };
const struct type cloudeye_type = TYPE(
        "CloudEyeSource", struct cloudeye_spec, cloudeye_fields,
        "Alarms of Cloud Eye, which come by a topic of Simple Message Notification.", RULES(cloudeye_rules));

static bool among(const struct strings *list, struct str value)
{
        for (size_t i = 0; i < list->n; i++)
                if (str_equal_nocase(value, str_of(list->list[i])))
                        return true;
        return false;
}

/* A level as a word, or as the number that the API has: 1 is the most severe. */
static struct str level_of(const json_t *alarm)
{
        static const char *const words[] = { "Critical", "Major", "Minor", "Informational" };
        static const char *const names[] = { "alarm_level", "alarmLevel", "level" };
        const json_t *value = NULL;
        int64_t level = 0;

        for (size_t i = 0; i < COUNT_OF(names) && (!value || json_is_null(value)); i++)
                value = json_object_get(alarm, names[i]);
        if (!value || json_is_null(value))
                return json_member(json_object_get(alarm, "template_variable"), "AlarmLevel");
        if (json_is_integer(value))
                level = json_integer_value(value);
        else if (json_is_string(value) && !str_to_int64(str_of(json_string_value(value)), &level))
                return str_of(json_string_value(value));
        return level >= 1 && level <= (int64_t)COUNT_OF(words) ? str_of(words[level - 1]) : (struct str){ 0 };
}

bool cloudeye_wants(const void *spec, struct str message)
{
        const struct cloudeye_spec *s = spec;
        const struct str text = json_without_mark(message);
        json_t *alarm = json_tree(text, 0, JSON_VALUES_MOST, NULL);
        /* What does not read like an alarm, such as one in plain text, is wanted where nothing is chosen: an
         * alarm must not vanish. */
        bool wants = !(s->states.n || s->alarms.n || s->severities.n) ||
                     (json_is_object(alarm) &&
                      (!s->states.n || among(&s->states, json_member(alarm, "alarm_status"))) &&
                      (!s->alarms.n || among(&s->alarms, json_member(alarm, "alarm_name")) ||
                       among(&s->alarms, json_member(alarm, "alarm_id"))) &&
                      (!s->severities.n || among(&s->severities, level_of(alarm))));

        json_decref(alarm);
        return wants;
}

static int cloudeye_open(struct source **out, const void *spec, const struct services *services,
                         struct error *err)
{
        return smn_open_for(out, spec, cloudeye_wants, services, err);
}

const struct shape cloudeye_shape = {
        .ce_type = "dev.sluice.cloudeye.alarm",
        .describe = smn_describe,
        .encode = smn_encode,
        .event = smn_event,
        .sample = smn_sample,
        .sample_free = smn_sample_free,
};
const struct source_kind cloudeye_source = {
        .name = "cloudEye",
        .type = &cloudeye_type,
        .shape = &cloudeye_shape,
        .push = &notified_push,
        .open = cloudeye_open,
        .origin = smn_origin,
        .external = notified_external,
        .warnings = source_account_warnings,
};
