//! TLS, which is not served yet.

use super::reasons::TLS;
use crate::config::key::{boolean, class, list, password, string};

config_keys! { pub(in crate::config) ROWS;
    [] boolean("ssl.allow.dn.changes").default("false").low()
        .doc("Allow a new certificate to have another distinguished name.")
        .no_effect(TLS);
    [] boolean("ssl.allow.san.changes").default("false").low()
        .doc("Allow a new certificate to have other alternative names.")
        .no_effect(TLS);
    [] list("ssl.cipher.suites").default("").per_broker()
        .doc("Cipher suites that may be used; none named allows all.")
        .no_effect(TLS);
    [] string("ssl.client.auth").default("none").one_of(&["required", "requested", "none"]).per_broker()
        .doc("Whether clients must show a certificate.")
        .no_effect(TLS);
    [] list("ssl.enabled.protocols").default("TLSv1.2,TLSv1.3").per_broker()
        .doc("Versions of TLS that may be used.")
        .no_effect(TLS);
    [] string("ssl.endpoint.identification.algorithm").default("https").low().per_broker()
        .doc("How a server's name is compared with its certificate.")
        .no_effect(TLS);
    [] class("ssl.engine.factory.class").low().per_broker()
        .doc("Class that sets up TLS.")
        .no_effect(TLS);
    [] password("ssl.key.password").per_broker()
        .doc("Password of the private key.")
        .no_effect(TLS);
    [] string("ssl.keymanager.algorithm").default("SunX509").per_broker()
        .doc("Algorithm of the Java key manager.")
        .no_effect(TLS);
    [] password("ssl.keystore.certificate.chain").per_broker()
        .doc("Certificate chain in PEM form.")
        .no_effect(TLS);
    [] password("ssl.keystore.key").per_broker()
        .doc("Private key in PEM form.")
        .no_effect(TLS);
    [] string("ssl.keystore.location").per_broker()
        .doc("File of the key store.")
        .no_effect(TLS);
    [] password("ssl.keystore.password").per_broker()
        .doc("Password of the key store.")
        .no_effect(TLS);
    [] string("ssl.keystore.type").default("JKS").per_broker()
        .doc("Format of the key store.")
        .no_effect(TLS);
    [] string("ssl.principal.mapping.rules").default("DEFAULT").low()
        .doc("Rules that turn a certificate's name into a principal.")
        .no_effect(TLS);
    [] string("ssl.protocol").default("TLSv1.3").per_broker()
        .doc("Version of TLS that is preferred.")
        .no_effect(TLS);
    [] string("ssl.provider").per_broker()
        .doc("Java provider of TLS.")
        .no_effect(TLS);
    [] string("ssl.secure.random.implementation").low().per_broker()
        .doc("Java source of random numbers.")
        .no_effect(TLS);
    [] string("ssl.trustmanager.algorithm").default("PKIX").per_broker()
        .doc("Algorithm of the Java trust manager.")
        .no_effect(TLS);
    [] password("ssl.truststore.certificates").per_broker()
        .doc("Trusted certificates in PEM form.")
        .no_effect(TLS);
    [] string("ssl.truststore.location").per_broker()
        .doc("File of the trust store.")
        .no_effect(TLS);
    [] password("ssl.truststore.password").per_broker()
        .doc("Password of the trust store.")
        .no_effect(TLS);
    [] string("ssl.truststore.type").default("JKS").per_broker()
        .doc("Format of the trust store.")
        .no_effect(TLS);
}
