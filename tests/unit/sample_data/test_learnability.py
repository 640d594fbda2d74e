"""The sample has structure worth learning: lapses, repeats, seasons, tastes, life cycles."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from monad_dagster.sample_data import generate_sample

NUM_CUSTOMERS = 12_000
TRAIN_DAY, TEST_DAY, WINDOW = 643, 703, 30


@dataclass
class Sample:
    """Rows as positions in the tables of customers and articles."""

    articles: pa.Table
    customers: pa.Table
    customer: np.ndarray
    article: np.ndarray
    day: np.ndarray
    price: np.ndarray


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A sample of 300,000 lines as arrays."""
    summary = generate_sample(
        tmp_path_factory.mktemp("sample"), num_customers=NUM_CUSTOMERS, num_transactions=300_000
    )
    articles = pq.read_table(summary.files["ARTICLES"][0])
    customers = pq.read_table(summary.files["CUSTOMERS"][0])
    rows = pa.concat_tables([pq.read_table(path) for path in summary.files["TRANSACTIONS"]])
    day = rows["T_DAT"].cast(pa.int32()).to_numpy()
    return Sample(
        articles,
        customers,
        pc.index_in(rows["CUSTOMER_ID"], customers["CUSTOMER_ID"]).to_numpy(),
        pc.index_in(rows["ARTICLE_ID"], articles["ARTICLE_ID"]).to_numpy(),
        day - day.min(),
        rows["PRICE"].to_numpy(),
    )


def churn_table(sample, cut):
    """Features and labels of the customers active in the 90 days up to *cut*."""
    trips = np.unique(sample.customer.astype(np.int64) * 1000 + sample.day)
    who, day = trips // 1000, trips % 1000

    def count(mask):
        return np.bincount(who[mask], minlength=NUM_CUSTOMERS)

    last = np.full(NUM_CUSTOMERS, -1000)
    np.maximum.at(last, who[day <= cut], day[day <= cut])
    features = [cut - last, np.log1p(count(day <= cut))]
    features += [count((day <= cut) & (day > cut - span)) for span in (30, 90, 180)]
    active = last > cut - 90
    churned = count((day > cut) & (day <= cut + WINDOW)) == 0
    return np.column_stack(features)[active], churned[active]


def churn_auroc(sample, columns):
    """AUROC at the later cut of a model fitted at the earlier one."""
    model = HistGradientBoostingClassifier(
        max_iter=80, learning_rate=0.08, max_leaf_nodes=8, random_state=0
    )
    features, labels = churn_table(sample, TRAIN_DAY)
    model.fit(features[:, columns], labels)
    features, labels = churn_table(sample, TEST_DAY)
    return roc_auc_score(labels, model.predict_proba(features[:, columns])[:, 1])


def test_churn_needs_more_than_recency(sample):
    """Recency with frequency predicts churn clearly better than recency alone."""
    recency, both = churn_auroc(sample, [0]), churn_auroc(sample, [0, 1, 2, 3, 4])
    assert 0.55 < recency < 0.70
    assert 0.65 < both < 0.85
    assert both - recency > 0.03


def test_churn_rate_is_balanced(sample):
    """Neither label is rare among recently active customers."""
    _, labels = churn_table(sample, TEST_DAY)
    assert 0.4 < labels.mean() < 0.8
    assert len(labels) > 0.2 * NUM_CUSTOMERS


def test_customers_buy_again(sample):
    """A tenth or more of the lines repeat an article that the customer bought on another day."""
    key = sample.customer.astype(np.int64) * len(sample.articles) + sample.article
    order = np.lexsort((sample.day, key))
    again = (key[order][1:] == key[order][:-1]) & (np.diff(sample.day[order]) > 0)
    assert 0.1 < again.mean() < 0.35


def group_share_by_month(sample, group):
    """Share of one product group in the lines of each calendar month."""
    is_group = pc.equal(sample.articles["PRODUCT_GROUP_NAME"], group).to_pylist()
    chosen = np.array(is_group)[sample.article]
    dates = np.datetime64("2018-09-20") + sample.day
    month = dates.astype("datetime64[M]").astype(int) % 12
    return np.bincount(month, weights=chosen, minlength=12) / np.bincount(month, minlength=12)


def test_seasons_are_visible(sample):
    """Swimwear sells in June and tights in winter."""
    swimwear = group_share_by_month(sample, "Swimwear")
    assert swimwear[5] > 10 * swimwear[11]
    socks = group_share_by_month(sample, "Socks & Tights")
    assert socks[0] > 2 * socks[6]


def test_weeks_have_a_pattern(sample):
    """Saturdays are busier than Mondays."""
    weekday = (sample.day + 3) % 7  # 2018-09-20 was a Thursday; 0 is Monday
    per_day = np.bincount(weekday, minlength=7)
    assert per_day[5] > 1.15 * per_day[0]


def test_customers_have_tastes(sample):
    """A customer's next line is far more often of the own main index than of another's."""
    index = pc.dictionary_encode(sample.articles["INDEX_CODE"]).combine_chunks().indices.to_numpy()
    table = np.zeros((NUM_CUSTOMERS, index.max() + 1))
    early = sample.day < 400
    np.add.at(table, (sample.customer[early], index[sample.article[early]]), 1)
    main = table.argmax(1)
    known = ~early & (table.sum(1)[sample.customer] >= 5)
    own = (index[sample.article[known]] == main[sample.customer[known]]).mean()
    shuffled = np.random.default_rng(0).permutation(main[sample.customer[known]])
    assert own > 1.7 * (index[sample.article[known]] == shuffled).mean()


def test_popularity_has_a_heavy_tail(sample):
    """The top tenth of the articles makes about half of the sales, and few sell nothing."""
    sales = np.sort(np.bincount(sample.article, minlength=len(sample.articles)))[::-1]
    assert 0.35 < sales[: len(sales) // 10].sum() / sales.sum() < 0.8
    assert (sales > 0).mean() > 0.7


def test_articles_come_and_go(sample):
    """Most articles of the first month are no longer sold in the last, and new ones are."""
    first = set(sample.article[sample.day < 30].tolist())
    last = set(sample.article[sample.day > 703].tolist())
    assert len(first & last) < 0.6 * len(first)
    assert len(last - first) > 0.3 * len(last)


def test_prices_fall_in_sales(sample):
    """Articles cost less in the July sale than their own highest price."""
    highest = np.zeros(len(sample.articles))
    np.maximum.at(highest, sample.article, sample.price)
    relative = sample.price / highest[sample.article]
    dates = np.datetime64("2018-09-20") + sample.day
    july = (dates >= np.datetime64("2019-07-01")) & (dates < np.datetime64("2019-07-20"))
    may = (dates >= np.datetime64("2019-05-01")) & (dates < np.datetime64("2019-06-01"))
    assert relative[july].mean() < relative[may].mean() - 0.05


def test_customers_join_over_time(sample):
    """Each quarter brings first purchases of new customers."""
    first = np.full(NUM_CUSTOMERS, 10_000)
    np.minimum.at(first, sample.customer, sample.day)
    quarters = np.bincount(first[first < 10_000] // 92, minlength=8)[:7]
    assert (quarters > 0.03 * NUM_CUSTOMERS).all()
    assert (first == 10_000).mean() < 0.01


def test_attributes_hint_at_churn(sample):
    """Readers of fashion news lapse less often, but the attribute alone does not decide."""
    trips = np.unique(sample.customer.astype(np.int64) * 1000 + sample.day) // 1000
    per_customer = np.bincount(trips, minlength=NUM_CUSTOMERS)
    reader = np.array(sample.customers["FN"].is_valid().to_pylist())
    ratio = per_customer[reader].mean() / per_customer[~reader].mean()
    assert 1.1 < ratio < 2.5
