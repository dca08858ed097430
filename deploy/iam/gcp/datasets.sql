-- The datasets of one environment, and who may write to them: nobody but its runs.
create schema if not exists `${PROJECT}.raw` options (location = '${LOCATION}');
grant `roles/bigquery.dataEditor` on schema `${PROJECT}.raw` to 'serviceAccount:ml-assets-runs@${PROJECT}.iam.gserviceaccount.com';
create schema if not exists `${PROJECT}.staging` options (location = '${LOCATION}');
grant `roles/bigquery.dataEditor` on schema `${PROJECT}.staging` to 'serviceAccount:ml-assets-runs@${PROJECT}.iam.gserviceaccount.com';
create schema if not exists `${PROJECT}.intermediate` options (location = '${LOCATION}');
grant `roles/bigquery.dataEditor` on schema `${PROJECT}.intermediate` to 'serviceAccount:ml-assets-runs@${PROJECT}.iam.gserviceaccount.com';
create schema if not exists `${PROJECT}.features` options (location = '${LOCATION}');
grant `roles/bigquery.dataEditor` on schema `${PROJECT}.features` to 'serviceAccount:ml-assets-runs@${PROJECT}.iam.gserviceaccount.com';
create schema if not exists `${PROJECT}.labels` options (location = '${LOCATION}');
grant `roles/bigquery.dataEditor` on schema `${PROJECT}.labels` to 'serviceAccount:ml-assets-runs@${PROJECT}.iam.gserviceaccount.com';
create schema if not exists `${PROJECT}.examples` options (location = '${LOCATION}');
grant `roles/bigquery.dataEditor` on schema `${PROJECT}.examples` to 'serviceAccount:ml-assets-runs@${PROJECT}.iam.gserviceaccount.com';
create schema if not exists `${PROJECT}.predictions` options (location = '${LOCATION}');
grant `roles/bigquery.dataEditor` on schema `${PROJECT}.predictions` to 'serviceAccount:ml-assets-runs@${PROJECT}.iam.gserviceaccount.com';
create schema if not exists `${PROJECT}.monitoring` options (location = '${LOCATION}');
grant `roles/bigquery.dataEditor` on schema `${PROJECT}.monitoring` to 'serviceAccount:ml-assets-runs@${PROJECT}.iam.gserviceaccount.com';
