//! Who clients are and what they may do, which is not served yet.

use super::reasons::{AUTHORIZER, JVM, SASL, TOKENS};
use crate::config::key::{boolean, class, double, int, list, long, password, short, string};

config_keys! { pub(in crate::config) ROWS;
    [] string("authorizer.class.name").default("").low()
        .doc("Class that decides who may do what; empty lets everybody do everything.")
        .default_only(AUTHORIZER);
    [] class("principal.builder.class")
        .default("org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder")
        .per_broker()
        .doc("Class that turns an authenticated connection into a principal.")
        .no_effect(SASL);
    [] int("connection.failed.authentication.delay.ms").default("100").min(0).low()
        .doc("How long, ms, a failed authentication keeps its connection waiting.")
        .no_effect(SASL);
    [] long("connections.max.reauth.ms").default("0")
        .doc("How long, ms, an authentication is good for; 0 for ever.")
        .no_effect(SASL);
    [] long("delegation.token.expiry.check.interval.ms").default("3600000").min(1).low()
        .doc("Time between two searches for expired delegation tokens, ms.")
        .no_effect(TOKENS);
    [] long("delegation.token.expiry.time.ms").default("86400000").min(1)
        .doc("How long, ms, a delegation token is good for without being renewed.")
        .no_effect(TOKENS);
    [] long("delegation.token.max.lifetime.ms").default("604800000").min(1)
        .doc("How long, ms, a delegation token can be renewed.")
        .no_effect(TOKENS);
    [] password("delegation.token.secret.key")
        .doc("Secret that delegation tokens are signed with.")
        .no_effect(TOKENS);
    [] string("security.providers").low()
        .doc("Classes that provide security algorithms.")
        .no_effect(JVM);
    [] class("sasl.client.callback.handler.class")
        .doc("Class that answers a SASL client's questions.")
        .no_effect(SASL);
    [] list("sasl.enabled.mechanisms").default("GSSAPI").per_broker()
        .doc("SASL mechanisms that clients may use.")
        .no_effect(SASL);
    [] password("sasl.jaas.config").per_broker()
        .doc("Login of a listener in JAAS form.")
        .no_effect(SASL);
    [] string("sasl.kerberos.kinit.cmd").default("/usr/bin/kinit").per_broker()
        .doc("Path of kinit.")
        .no_effect(SASL);
    [] long("sasl.kerberos.min.time.before.relogin").default("60000").per_broker()
        .doc("Least time between two Kerberos logins, ms.")
        .no_effect(SASL);
    [] list("sasl.kerberos.principal.to.local.rules").default("DEFAULT").per_broker()
        .doc("Rules that shorten Kerberos principals.")
        .no_effect(SASL);
    [] string("sasl.kerberos.service.name").per_broker()
        .doc("Kerberos principal the node runs as.")
        .no_effect(SASL);
    [] double("sasl.kerberos.ticket.renew.jitter").default("0.05").per_broker()
        .doc("Random share of the time at which a ticket is renewed.")
        .no_effect(SASL);
    [] double("sasl.kerberos.ticket.renew.window.factor").default("0.8").per_broker()
        .doc("Share of a ticket's life after which it is renewed.")
        .no_effect(SASL);
    [] class("sasl.login.callback.handler.class")
        .doc("Class that answers questions of a login.")
        .no_effect(SASL);
    [] class("sasl.login.class")
        .doc("Class that logs in.")
        .no_effect(SASL);
    [] int("sasl.login.connect.timeout.ms").low()
        .doc("How long, ms, connecting to the identity provider may take.")
        .no_effect(SASL);
    [] int("sasl.login.read.timeout.ms").low()
        .doc("How long, ms, the identity provider's answer may take.")
        .no_effect(SASL);
    [] short("sasl.login.refresh.buffer.seconds").default("300").per_broker()
        .doc("Time before its end at which a credential is refreshed at the latest, seconds.")
        .no_effect(SASL);
    [] short("sasl.login.refresh.min.period.seconds").default("60").per_broker()
        .doc("Least time between two refreshes, seconds.")
        .no_effect(SASL);
    [] double("sasl.login.refresh.window.factor").default("0.8").per_broker()
        .doc("Share of a credential's life after which it is refreshed.")
        .no_effect(SASL);
    [] double("sasl.login.refresh.window.jitter").default("0.05").per_broker()
        .doc("Random share of that time.")
        .no_effect(SASL);
    [] long("sasl.login.retry.backoff.max.ms").default("10000").low()
        .doc("Longest wait between two tries to log in, ms.")
        .no_effect(SASL);
    [] long("sasl.login.retry.backoff.ms").default("100").low()
        .doc("First wait between two tries to log in, ms.")
        .no_effect(SASL);
    [] string("sasl.mechanism.controller.protocol").default("GSSAPI").high()
        .doc("SASL mechanism towards controllers.")
        .no_effect(SASL);
    [] string("sasl.mechanism.inter.broker.protocol").default("GSSAPI").per_broker()
        .doc("SASL mechanism among brokers.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.assertion.algorithm").default("RS256").one_of_any_case(&["ES256", "RS256"])
        .doc("Algorithm that assertions are signed with.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.assertion.claim.aud")
        .doc("Audience claim of an assertion.")
        .no_effect(SASL);
    [] int("sasl.oauthbearer.assertion.claim.exp.seconds").default("300").between(0, 86400).low()
        .doc("How long an assertion is good for, seconds.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.assertion.claim.iss")
        .doc("Issuer claim of an assertion.")
        .no_effect(SASL);
    [] boolean("sasl.oauthbearer.assertion.claim.jti.include").default("false")
        .doc("Give each assertion an id.")
        .no_effect(SASL);
    [] int("sasl.oauthbearer.assertion.claim.nbf.seconds").default("60").between(0, 3600).low()
        .doc("How far before now an assertion is good from, seconds.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.assertion.claim.sub")
        .doc("Subject claim of an assertion.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.assertion.file")
        .doc("File that holds a finished assertion.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.assertion.private.key.file")
        .doc("File of the key that assertions are signed with.")
        .no_effect(SASL);
    [] password("sasl.oauthbearer.assertion.private.key.passphrase")
        .doc("Passphrase of that key.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.assertion.template.file")
        .doc("File with further claims of an assertion.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.client.credentials.client.id")
        .doc("Client id at the identity provider.")
        .no_effect(SASL);
    [] password("sasl.oauthbearer.client.credentials.client.secret")
        .doc("Client secret at the identity provider.")
        .no_effect(SASL);
    [] int("sasl.oauthbearer.clock.skew.seconds").default("30").low()
        .doc("Difference of clocks that is forgiven, seconds.")
        .no_effect(SASL);
    [] list("sasl.oauthbearer.expected.audience").default("").high()
        .doc("Audiences a token may name.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.expected.issuer").high()
        .doc("Issuer a token must name.")
        .no_effect(SASL);
    [] long("sasl.oauthbearer.jwks.endpoint.refresh.ms").default("3600000").low()
        .doc("Time between two looks at the identity provider's keys, ms.")
        .no_effect(SASL);
    [] long("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms").default("10000").low()
        .doc("Longest wait between two tries to get those keys, ms.")
        .no_effect(SASL);
    [] long("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms").default("100").low()
        .doc("First wait between two tries to get those keys, ms.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.jwks.endpoint.url")
        .doc("Address of the identity provider's keys.")
        .no_effect(SASL);
    [] class("sasl.oauthbearer.jwt.retriever.class")
        .default("org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever")
        .doc("Class that gets tokens.")
        .no_effect(SASL);
    [] class("sasl.oauthbearer.jwt.validator.class")
        .default("org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator")
        .doc("Class that checks tokens.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.scope")
        .doc("Scope that is asked for.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.scope.claim.name").default("scope").low()
        .doc("Claim that holds the scope.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.sub.claim.name").default("sub").low()
        .doc("Claim that holds the subject.")
        .no_effect(SASL);
    [] string("sasl.oauthbearer.token.endpoint.url")
        .doc("Address where tokens are got.")
        .no_effect(SASL);
    [] class("sasl.server.callback.handler.class")
        .doc("Class that answers a SASL server's questions.")
        .no_effect(SASL);
    [] int("sasl.server.max.receive.size").default("524288")
        .doc("Longest SASL message that is taken, bytes.")
        .no_effect(SASL);
}
