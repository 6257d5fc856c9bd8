"""A real Kafka broker of one node (KRaft), for tests; another one may join it.

with Kafka() as kafka:
    kafka.create_topic("orders", 4)
    kafka.produce("orders", [...])
    kafka.stop(); kafka.start()     # the same ports and the same data
    with Kafka(joins=kafka) as second:
        kafka.create_topic("two", leaders=[1, 2])
"""

import base64
import os
import pathlib
import tempfile
import uuid

from . import TOOLS, process
from .ports import free_ports
from .process import Process, run

PROPERTIES = """\
process.roles={roles}
node.id={node}
controller.quorum.voters=1@{controller_host}:{controller_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://{host}:{port},SASL_PLAINTEXT://{host}:{sasl_port}{tls}{controller}
advertised.listeners=PLAINTEXT://{advertised}:{port},SASL_PLAINTEXT://{advertised}:{sasl_port}{advertised_tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,MUTUAL:SSL,OTHER:SSL,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
log.dirs={directory}/data
num.partitions=1
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=2097152
"""

TLS_LISTENERS = ("SSL", "MUTUAL", "OTHER", "SASL_SSL")
TLS_PROPERTIES = """\
ssl.keystore.type=PEM
ssl.keystore.location={directory}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={directory}/ca.pem
listener.name.mutual.ssl.client.auth=required
listener.name.other.ssl.keystore.type=PEM
listener.name.other.ssl.keystore.location={directory}/other.pem
listener.name.other.ssl.truststore.type=PEM
listener.name.other.ssl.truststore.location={directory}/ca.pem
"""

LOG4J = """\
status = error
appender.stdout.type = Console
appender.stdout.name = STDOUT
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.stdout.ref = STDOUT
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


class Kafka:
    user, password = "sluice", "sluice-secret"

    def __init__(
        self,
        host="127.0.0.1",
        *,
        advertised=None,
        netns=None,
        properties=None,
        directory=None,
        heap="512m",
        joins=None,
        tls=None,
        users=None,
        version=(),
    ):
        """host: where it listens; advertised: the name clients are told (host); netns: the network namespace it runs in;
        joins: the first node, which this one, the second, finds its cluster by; tls: a folder of ca.pem, server.pem and
        other.pem (for a name that is not its own) with their keys, for listeners with TLS; users: {name: password} of PLAIN;
        version: ["3"] for the last one of Kafka 3."""
        self.joins, self.node, self.cluster, self.controller_port = joins, 2 if joins else 1, None, None
        self.host, self.netns, self.heap = host, netns, heap
        self.advertised = advertised or host
        self.properties = properties or {}
        self._own = None if directory else tempfile.TemporaryDirectory(prefix="kafka-")
        self.directory = pathlib.Path(directory or self._own.name)
        self.process = None
        self.port = self.sasl_port = None
        self.version = version
        self.tls, self.users, self.tls_ports = tls, users or {self.user: self.password}, {}

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind, *_):
        if kind and self.process:
            print(self.process.describe())
        self.close()

    @property
    def bootstrap(self):
        return f"{self.advertised}:{self.port}"

    @property
    def sasl_bootstrap(self):
        return f"{self.advertised}:{self.sasl_port}"

    def tls_bootstrap(self, listener):
        """A listener with TLS: SSL, MUTUAL (asks for a client's certificate), OTHER (its certificate is for another name), SASL_SSL."""
        return f"{self.advertised}:{self.tls_ports[listener]}"

    def set_users(self, users):
        """The users of PLAIN, from the next start on."""
        self.users = users
        self._configure()

    @property
    def log(self):
        return self.process.out_path

    def _java(self, *arguments):
        jars = run([TOOLS / "kafka", "fetch", *self.version], timeout=900).stdout.strip()
        return [
            "java",
            f"-Xmx{self.heap}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            f"-Dlog4j2.configurationFile={self.directory}/log4j2.properties",
            "-cp",
            f"{jars}/*",
            *arguments,
        ]

    def _format(self):
        """Writes the configuration and an empty log, once."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, self.sasl_port, controller = process.in_netns(self.netns, lambda: free_ports(3, self.host))
        self.controller_port = self.joins.controller_port if self.joins else controller
        if self.tls:
            ports = process.in_netns(self.netns, lambda: free_ports(len(TLS_LISTENERS), self.host))
            self.tls_ports = dict(zip(TLS_LISTENERS, ports))
        self._controller = controller
        config = self._configure()
        (self.directory / "log4j2.properties").write_text(LOG4J)
        self.cluster = (
            self.joins.cluster
            if self.joins
            else base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        )
        scram = [
            a
            for m in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for a in ("--add-scram", f"{m}=[name={self.user},password={self.password}]")
            if not self.joins
        ]
        run(
            self._java(
                "kafka.tools.StorageTool", "format", f"--cluster-id={self.cluster}", "-c", config, *scram
            )
        )

    def _configure(self):
        config = self.directory / "server.properties"
        text = PROPERTIES.format(
            host=self.host,
            port=self.port,
            sasl_port=self.sasl_port,
            roles="broker" if self.joins else "broker,controller",
            node=self.node,
            controller="" if self.joins else f",CONTROLLER://{self.host}:{self._controller}",
            controller_port=self.controller_port,
            controller_host=self.host,
            advertised=self.advertised,
            directory=self.directory,
            users=" ".join(f'user_{user}="{password}"' for user, password in self.users.items()),
            tls="".join(f",{name}://{self.host}:{port}" for name, port in self.tls_ports.items()),
            advertised_tls="".join(
                f",{name}://{self.advertised}:{port}" for name, port in self.tls_ports.items()
            ),
        )
        if self.tls:
            text += TLS_PROPERTIES.format(directory=self.directory)
            for name in ("server", "other"):
                (self.directory / f"{name}.pem").write_text(
                    "".join((self.tls / f"{name}{end}").read_text() for end in (".key", ".pem"))
                )
            (self.directory / "ca.pem").write_text((self.tls / "ca.pem").read_text())
        config.write_text(text + "".join(f"{k}={v}\n" for k, v in self.properties.items()))
        return config

    def start(self):
        if self.port is None:
            self._format()
        if self.process is None:
            self.process = Process(
                self._java("kafka.Kafka", self.directory / "server.properties"),
                name="kafka",
                merge=True,
                directory=self.directory,
                netns=self.netns,
                stop_timeout=20,
            )
        self.process.start()
        self.process.wait_until("serves", self._answers, 60)
        return self

    def _answers(self):
        """Does the broker list itself as one that serves? Its port is open before that, while it recovers the log and is fenced."""
        return self._client(_brokers, self.node)

    def stop(self):
        """A clean shutdown; start() goes on with the same ports and data."""
        return self.process.stop()

    def kill(self):
        return self.process.kill()

    def close(self):
        if self.process:
            self.process.close()
        if self._own:
            self._own.cleanup()

    # What clients do. confluent-kafka runs in this process, or in the broker's network namespace.

    def _client(self, function, *arguments):
        if not self.netns:
            return function(self.bootstrap, *arguments)
        return in_netns(self.netns, function, self.bootstrap, *arguments)

    def create_topic(self, name, partitions=1, config=None, leaders=None):
        """leaders: the node of each partition, instead of their number."""
        self._client(_create_topic, name, partitions, config or {}, leaders)

    def delete_topic(self, name):
        self._client(_delete_topic, name)

    def grow_topic(self, name, partitions):
        self._client(_grow_topic, name, partitions)

    def purge(self, topic, before):
        """Deletes the records below {partition: offset}, as retention does."""
        self._client(_purge, topic, before)

    def produce(self, topic, messages):
        """messages: of {value, key, partition, headers, timestamp}, or bare values; all acknowledged on return."""
        self._client(_produce, topic, [m if isinstance(m, dict) else {"value": m} for m in messages])

    def commit(self, group, topic, offsets):
        """Commits {partition: offset} for the group without being a member of it."""
        self._client(_commit, group, topic, offsets)

    def committed(self, group, topic, partitions):
        """{partition: committed offset, or None}"""
        return self._client(_committed, group, topic, partitions)

    def end_offsets(self, topic, partitions):
        return self._client(_end_offsets, topic, partitions)


def in_netns(netns, function, *arguments):
    """Calls a function in a child that has joined a network namespace; the namespace of this process does not change."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child():
        try:
            with open(f"/var/run/netns/{netns}") as f:
                _setns(f.fileno())
            sender.send((True, function(*arguments)))
        except BaseException as e:
            sender.send((False, f"{type(e).__name__}: {e}"))
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    sender.close()
    try:
        ok, value = receiver.recv()
    except EOFError:
        ok, value = False, "the child ended without an answer"
    process.join()
    if not ok:
        raise AssertionError(f"{function.__name__} in {netns}: {value}")
    return value


def _setns(descriptor):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")


def _admin(bootstrap):
    """A broker that paused for a second is none for a moment: a client that asks just then is to ask again soon."""
    from confluent_kafka.admin import AdminClient

    return AdminClient(
        {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
            "topic.metadata.refresh.interval.ms": 200,
        }
    )


def _brokers(bootstrap, node):
    return node in _admin(bootstrap).list_topics(timeout=5).brokers


def _create_topic(bootstrap, name, partitions, config, leaders):
    from confluent_kafka.admin import NewTopic

    admin = _admin(bootstrap)
    where = {"replica_assignment": [[n] for n in leaders]} if leaders else {"replication_factor": 1}
    topic = NewTopic(name, len(leaders) if leaders else partitions, config=config, **where)
    admin.create_topics([topic], operation_timeout=20)[name].result(30)


def _delete_topic(bootstrap, name):
    admin = _admin(bootstrap)
    admin.delete_topics([name], operation_timeout=20)[name].result(30)


def _grow_topic(bootstrap, name, partitions):
    from confluent_kafka.admin import NewPartitions

    admin = _admin(bootstrap)
    admin.create_partitions([NewPartitions(name, partitions)], operation_timeout=20)[name].result(30)


def _purge(bootstrap, topic, before):
    from confluent_kafka import TopicPartition

    admin = _admin(bootstrap)
    for f in admin.delete_records([TopicPartition(topic, p, o) for p, o in before.items()]).values():
        f.result(30)


def _produce(bootstrap, topic, messages):
    from confluent_kafka import Producer

    failed = []
    producer = Producer(
        {"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5, "enable.idempotence": True}
    )
    for m in messages:
        while True:
            try:
                producer.produce(topic, on_delivery=lambda e, _: e and failed.append(str(e)), **m)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(60)
    if failed or left:
        raise AssertionError(f"{left} messages not acknowledged, {len(failed)} refused: {failed[:3]}")


def _commit(bootstrap, group, topic, offsets):
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    try:
        consumer.commit(offsets=[TopicPartition(topic, p, o) for p, o in offsets.items()], asynchronous=False)
    finally:
        consumer.close()


def _committed(bootstrap, group, topic, partitions):
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        found = consumer.committed([TopicPartition(topic, p) for p in range(partitions)], timeout=20)
        return {t.partition: (t.offset if t.offset >= 0 else None) for t in found}
    finally:
        consumer.close()


def _end_offsets(bootstrap, topic, partitions):
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "offsets"})
    try:
        return {
            p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=20)[1]
            for p in range(partitions)
        }
    finally:
        consumer.close()
