//! The words and numbers by which providers name an error, and what each means. Used by [`status`](super::status).
//!
//! They are compared without case and punctuation: `rate_limit_exceeded`, `RATE_LIMIT_EXCEEDED` and
//! `RateLimitExceeded` are one word. From the error references of OpenAI, Azure OpenAI, Anthropic, Google (`google.rpc.Code`,
//! `ErrorInfo` reasons of googleapis.com), Groq, Mistral, xAI, OpenRouter, LiteLLM, new-api, Moonshot, Zhipu, MiniMax, Alibaba's DashScope and Volcengine (2026).

use super::error::Category;

/// Words that say more than a status does: they are looked up first. Where several occur, the first row counts.
const TELLING: &[(Category, &[&str])] = &[
    (
        Category::Billing,
        &[
            "insufficientquota",
            "creditbalanceexhausted",
            "billinghardlimitreached",
            "billingnotactive",
            "billingerror",
            "billingdisabled",
            "spendlimitreached",
            "usagelimitreached",
            "enforcedspendlimitreached",
            "insufficientbalance",
            "insufficientcredits",
            "insufficientfunds",
            "paymentrequired",
            "exceededcurrentquotaerror",   // Moonshot
            "arrearage",                   // DashScope
            "accountoverdueerror",         // Volcengine
            "1113",                        // Zhipu: in arrears
            "1309",                        // Zhipu: the plan has expired
            "baseresp1008",                // MiniMax
            "allocationquotafreetieronly", // DashScope
            "insufficientuserquota",       // new-api, and the next
            "preconsumetokenquotafailed",
            "quotanotenough", // one-api
            "budgetexceeded", // LiteLLM
        ],
    ),
    (
        Category::DailyQuota,
        &["1304", "1308", "1310", "baseresp2056", "dailylimitreached", "dailylimitexceeded"], // Zhipu, MiniMax
    ),
    (
        Category::Authentication,
        &[
            "invalidapikey",
            "incorrectapikey",
            "authenticationerror",
            "invalidauthenticationerror",
            "invalidauthentication",
            "unauthenticated",
            "apikeyinvalid", // Google's ErrorInfo, with status 400
            "apikeyexpired",
            "accesstokenexpired",
            "accesstokentypeunsupported",
            "credentialsmissing",
            "accountdeactivated",
            "baseresp1004", // MiniMax
            "baseresp2049",
            "expiredtokenexception", // AWS, and the next
            "expiredtoken",
            "invalidsignatureexception",
            "signaturedoesnotmatch",
            "requestexpired",
            "unrecognizedclientexception",
            "missingauthenticationtokenexception",
            "incompletesignatureexception",
        ],
    ),
    (
        Category::Permission,
        &[
            "permissionerror",
            "apikeyserviceblocked", // Google's ErrorInfo
            "apikeyhttpreferrerblocked",
            "apikeyipaddressblocked",
            "apikeyandroidappblocked",
            "apikeyiosappblocked",
            "servicedisabled",
            "consumerinvalid",
            "consumersuspended",
            "accountstateinvalid",
            "iampermissiondenied",
            "userprojectdenied",
            "unsupportedcountryregionterritory",
            "accessterminatederror",
            "accessdeniedexception",  // AWS
            "missingscope",           // OpenAI, with status 401
            "organizationrestricted", // Groq, with status 400
            "1112",                   // Zhipu: locked
            "1220",
        ],
    ),
    (
        Category::ContentFilter,
        &[
            "contentfilter",
            "contentpolicyviolation",
            "moderationblocked", // OpenAI
            "flaggedinput",      // OpenRouter
            "responsibleaipolicyviolation",
            "datainspectionfailed",     // DashScope
            "sensitivecontentdetected", // Volcengine
            "1301",                     // Zhipu
            "baseresp1026",             // MiniMax: in the prompt, in the answer
            "baseresp1027",
        ],
    ),
    (
        Category::Overload,
        &[
            "resourceunavailable",
            "capacityexceeded",
            "serverisoverloaded",
            "serveroverloaded",
            "overloadederror",
            "overloaded",
            "engineoverloadederror",
            "engineoverloaded",
            "modeloverloaded",
            "servicetiercapacityexceeded", // Mistral
            "nocapacity",                  // Azure
            "1312",                        // Zhipu
            "3040",                        // Cloudflare
            "modelnotreadyexception",      // AWS, with status 429, and the next
            "serviceunavailableexception",
        ],
    ),
    (
        Category::RateLimit,
        &[
            "ratelimitexceeded",
            "ratelimiterror",
            "ratelimitreachederror",
            "ratelimitreached",
            "ratelimited",
            "ratelimit",
            "toomanyrequests",
            "slowdown",
            "throttled",
            "throttling",
            "throttlingexception",
            "throttlingratequota",
            "throttlingallocationquota",
            "toomanyrequestsexception", // AWS
            "throttlingburstrate",
            "1302", // Zhipu: too many at once, too many a minute, too many for the model
            "1303",
            "1305",
            "baseresp1002", // MiniMax: requests, tokens, connections, growth
            "baseresp1039",
            "baseresp1041",
            "baseresp2045",
        ],
    ),
    // The model wrote what Groq itself cannot read.
    (Category::Validation, &["toolusefailed", "jsonvalidatefailed"]),
    // AWS: the model's failure, with status 424; its time, with 408.
    (Category::Server, &["modelerrorexception", "modelstreamerrorexception", "internalserverexception"]),
    (Category::Timeout, &["modeltimeoutexception"]),
    (
        Category::Client,
        &[
            "contextlengthexceeded",
            "exceedcontextsizeerror", // llama.cpp
            "stringabovemaxlength",
            "1261",
            "baseresp2013",
            "servicequotaexceededexception",
        ],
    ),
];

/// Words that say what a status says too: they are looked up where there is none.
const GENERAL: &[(Category, &[&str])] = &[
    // Google says it of money too, in sentences.
    (Category::RateLimit, &["resourceexhausted"]),
    (Category::Overload, &["unavailable", "serviceunavailableerror", "serviceunavailable"]),
    (
        Category::Timeout,
        &["timeouterror", "timeout", "requesttimeout", "deadlineexceeded", "gatewaytimeout", "baseresp1001"],
    ),
    (Category::Permission, &["permissiondenied", "permissiondeniederror", "forbidden"]),
    (Category::Authentication, &["unauthorized", "1000", "1001", "1002", "1003", "1004"]), // Zhipu
    (
        Category::Client,
        &[
            "badrequest",
            "badrequesterror",
            "failedprecondition",
            "notfound",
            "notfounderror",
            "resourcenotfounderror",
            "modelnotfound",
            "outofrange",
            "requesttoolarge",
            "resourcenotfoundexception", // AWS, and the next
            "validationexception",
            "unprocessableentity",
            "1210", // Zhipu: 1210 to 1215
            "1211",
            "1212",
            "1213",
            "1214",
            "1215",
        ],
    ),
];

/// Beginnings of words that mean a wrong request, where there is no status.
const WRONG_REQUEST: &[&str] = &["invalid", "unsupported", "image", "malformed"];

/// Sentences of providers that have no word for it, in lower case.
const SENTENCES: &[(Category, &[&str])] = &[
    (
        Category::Billing,
        &[
            "credit balance is too low", // Anthropic, and the next
            "reached your specified api usage limits",
            "insufficient balance", // DeepSeek
            "insufficient credits", // OpenRouter, and the next
            "key limit exceeded",
            "used all available credits", // xAI, and the next
            "doesn't have any credits",
            "prepayment credits are depleted", // Google, and the next
            "monthly spending cap",
            "余额不足", // Zhipu, and the next
            "欠费",
        ],
    ),
    (Category::DailyQuota, &["free-models-per-day", "daily free allocation", "too many tokens per day"]), // OpenRouter; Cloudflare
    (
        Category::Authentication,
        &["incorrect api key provided", "api key not valid", "api key was reported as leaked"], // xAI; Google
    ),
    (Category::Permission, &["user location is not supported"]), // Google
    (Category::ContentFilter, &["output blocked by content filtering policy"]), // Anthropic
];

/// What words say, whatever the status; `None`: they leave it to the status.
pub fn telling(words: &[&str], message: &str) -> Option<Category> {
    look_up(TELLING, words).or_else(|| {
        let message = message.to_lowercase();
        let says = |(_, sentences): &&(Category, &[&str])| sentences.iter().any(|sentence| message.contains(sentence));
        SENTENCES.iter().find(says).map(|(category, _)| *category)
    })
}

/// Whether a message says that the request is larger than what may be used in a minute.
pub fn is_too_large(message: &str) -> bool {
    message.trim_start().to_lowercase().starts_with("request too large")
}

/// What words say where there is no status.
pub fn general(words: &[&str]) -> Option<Category> {
    look_up(GENERAL, words).or_else(|| {
        let wrong = |word: &&str| WRONG_REQUEST.iter().any(|beginning| plain(word).starts_with(beginning));
        words.iter().any(wrong).then_some(Category::Client)
    })
}

/// Whether a text is one of the words.
pub fn is_known(text: &str) -> bool {
    text.len() <= 60 && (look_up(TELLING, &[text]).is_some() || look_up(GENERAL, &[text]).is_some())
}

fn look_up(table: &[(Category, &[&str])], words: &[&str]) -> Option<Category> {
    let plain: Vec<String> = words.iter().map(|word| plain(word)).collect();
    let row = table.iter().find(|(_, known)| plain.iter().any(|word| known.contains(&word.as_str())));
    row.map(|(category, _)| *category)
}

fn plain(word: &str) -> String {
    word.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_without_case_and_punctuation() {
        for word in ["rate_limit_exceeded", "RATE_LIMIT_EXCEEDED", "RateLimitExceeded", "rate limit exceeded"] {
            assert_eq!(telling(&[word], ""), Some(Category::RateLimit), "{word}");
        }
        assert_eq!(telling(&["rate_limit_exceeded_soon"], ""), None);
    }

    #[test]
    fn no_money_counts_before_too_fast() {
        assert_eq!(telling(&["rate_limit_exceeded", "insufficient_quota"], ""), Some(Category::Billing));
        assert_eq!(telling(&["invalid_request_error"], "Your Credit balance is too low to"), Some(Category::Billing));
    }

    #[test]
    fn sentences_tell_where_no_word_does() {
        for (sentence, expected) in [
            ("Incorrect API key provided: xa***xx.", Category::Authentication),
            ("You have reached your specified API usage limits.", Category::Billing),
            ("Your team has either used all available credits or reached its limit", Category::Billing),
            ("Output blocked by content filtering policy", Category::ContentFilter),
            ("Rate limit exceeded: free-models-per-day.", Category::DailyQuota),
        ] {
            assert_eq!(telling(&["unknown_word"], sentence), Some(expected), "{sentence}");
        }
        assert_eq!(telling(&["invalid_api_key"], "insufficient credits"), Some(Category::Authentication));
    }

    #[test]
    fn every_word_is_plain_and_stands_once() {
        let mut seen = std::collections::HashSet::new();
        for word in TELLING.iter().chain(GENERAL).flat_map(|(_, words)| *words) {
            assert_eq!(plain(word), *word);
            assert!(seen.insert(word), "{word} stands twice");
        }
    }
}
