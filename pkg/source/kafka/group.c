#include "log/log.h"
#include "source/kafka/inside.h"

/* ---- has the group begun before? ---------------------------------------- */

/* Two questions, whose answers are events: the positions it has, and whether it exists, for a topic that is
 * deleted takes its positions along. A broker that can't say leaves the positions of the partitions that we
 * get. */
void group_ask(struct kafka *s)
{
        BUF_AT_END struct buf group = BUF_INIT(1024);
        rd_kafka_ListConsumerGroupOffsets_t *offsets;
        const char *name;

        kafka_group(s->spec, s->services->trigger, &group);
        if (group.failed) {
                s->ask_at = s->now + KAFKA_AGAIN;
                return;
        }
        name = group.p;
        offsets = rd_kafka_ListConsumerGroupOffsets_new(name, NULL);
        s->ask_at = 0;
        s->asked = 2;
        rd_kafka_ListConsumerGroupOffsets(s->rk, &offsets, 1, NULL, s->queue);
        rd_kafka_DescribeConsumerGroups(s->rk, &name, 1, NULL, s->queue);
        rd_kafka_ListConsumerGroupOffsets_destroy(offsets);
}

/* Is another try of any use? What a broker does not know, or forbids, it will not say next time either. */
static bool passes(rd_kafka_resp_err_t r)
{
        return r != RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE && r != RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION &&
               r != RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED &&
               r != RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND && r != RD_KAFKA_RESP_ERR__INVALID_ARG;
}

static rd_kafka_resp_err_t group_offsets(struct kafka *s, rd_kafka_event_t *event)
{
        const rd_kafka_group_result_t **groups;
        const rd_kafka_topic_partition_list_t *list;
        rd_kafka_resp_err_t r = rd_kafka_event_error(event);
        size_t n;

        if (r)
                return r;
        groups = rd_kafka_ListConsumerGroupOffsets_result_groups(
                rd_kafka_event_ListConsumerGroupOffsets_result(event), &n);
        if (n && rd_kafka_group_result_error(groups[0]))
                return rd_kafka_error_code(rd_kafka_group_result_error(groups[0]));
        list = n ? rd_kafka_group_result_partitions(groups[0]) : NULL;
        for (int i = 0; list && i < list->cnt; i++)
                s->established = s->established || (!list->elems[i].err && list->elems[i].offset >= 0);
        return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* Members of other names may be starting for the first time just as we are. */
static rd_kafka_resp_err_t group_exists(struct kafka *s, rd_kafka_event_t *event)
{
        const rd_kafka_ConsumerGroupDescription_t **groups;
        rd_kafka_resp_err_t r = rd_kafka_event_error(event);
        size_t n;

        if (r)
                return r;
        groups = rd_kafka_DescribeConsumerGroups_result_groups(
                rd_kafka_event_DescribeConsumerGroups_result(event), &n);
        if (!n)
                return RD_KAFKA_RESP_ERR_NO_ERROR;
        if (rd_kafka_ConsumerGroupDescription_error(groups[0]))
                return rd_kafka_error_code(rd_kafka_ConsumerGroupDescription_error(groups[0]));
        if (rd_kafka_ConsumerGroupDescription_state(groups[0]) == RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY)
                s->established = true;
        for (size_t i = 0;
             s->services->instance && i < rd_kafka_ConsumerGroupDescription_member_count(groups[0]); i++) {
                const char *name = rd_kafka_MemberDescription_group_instance_id(
                        rd_kafka_ConsumerGroupDescription_member(groups[0], i));

                s->established = s->established || (name && strcmp(name, s->services->instance) == 0);
        }
        return RD_KAFKA_RESP_ERR_NO_ERROR;
}

void group_told(struct kafka *s, rd_kafka_event_t *event)
{
        bool offsets = rd_kafka_event_type(event) == RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT;
        rd_kafka_resp_err_t r = offsets ? group_offsets(s, event) : group_exists(s, event);
        struct error err;

        if (r)
                log_debug_for(s->services->log, "the consumer group is not known",
                              LOG_S("error", rd_kafka_err2str(r)));
        if (r && passes(r))
                s->ask_at = s->now + KAFKA_AGAIN;
        if (--s->asked || s->close_asked || s->stopping || s->fatal || s->subscribed ||
            (s->ask_at && !s->established))
                return;
        s->ask_at = 0;
        if (kafka_subscribe(s, &err) < 0)
                kafka_set_state(s, SOURCE_FAILED, err.text);
}
